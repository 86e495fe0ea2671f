//! The table as lanes see it.

use std::sync::Arc;

use kratos::trace::{Attributes, SpanContext};
use tokio::time::Instant;
use tracing::Span;

use super::{
    LaneCell, Member, Table, Ticket,
    places::{Entry, Phase},
};
use crate::{
    Delivery, Topic,
    clock::before,
    delivery::Received,
    driver::{Consumer, Settlement},
    engine::{
        counters::Counters,
        lane::{Desk, Holds},
        span::{self, Origin},
    },
};

impl<C: Consumer> Desk for Table<C> {
    fn start(&self, ticket: Ticket, cell: &Arc<LaneCell>, horizon: Instant) -> Option<Instant> {
        self.turn(None, ticket, cell, horizon)
    }

    fn turn(
        &self,
        done: Option<Ticket>,
        next: Ticket,
        cell: &Arc<LaneCell>,
        horizon: Instant,
    ) -> Option<Instant> {
        let mut state = self.lock();
        let (mut settled, mut running) = (None, None);
        if let Some(done) = done {
            let Some((lease, lane, room)) = state.settle(done, Settlement::Ack, horizon) else {
                drop(state);
                self.settle_at(done, Settlement::Ack, horizon);
                return self.turn(None, next, cell, horizon);
            };
            settled = Some((done, lease, room));
            // The lane's own: not to count references is cheaper.
            running = lane;
        }
        let running = running.unwrap_or_else(|| cell.clone());
        let started = state.start(next, running, horizon);
        drop(state);
        if let Some((done, lease, room)) = settled {
            self.hand_over(done, lease, Settlement::Ack, room);
        }
        if started.is_none() {
            self.refuse(next);
        }
        started
    }

    fn wait(&self, ticket: Ticket) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entry(ticket) else {
            return false;
        };
        entry.phase = Phase::Waiting;
        let waits = !entry.batch_lost;
        if !waits {
            drop(state);
            self.give_up(ticket);
        }
        waits
    }

    fn bury(&self, ticket: Ticket) {
        let mut state = self.lock();
        let Some(entry) = state.entry(ticket) else {
            return;
        };
        entry.phase = Phase::Burying;
        if entry.batch_lost {
            drop(state);
            self.give_up(ticket);
        }
    }

    fn is_burying(&self, ticket: Ticket) -> bool {
        let mut state = self.lock();
        let entry = state.entry(ticket);
        entry.is_some_and(|entry| matches!(entry.phase, Phase::Burying))
    }

    fn holds(&self, topic: usize, route: usize) -> Holds {
        let state = self.lock();
        let max_hold = state.loads[topic].max_hold();
        let (mut holds, mut first) = (Holds::default(), None);
        for entry in state.places.iter().filter_map(|place| place.entry.as_ref()) {
            if (entry.topic, entry.route) != (topic, route) {
                continue;
            }
            match entry.phase {
                Phase::Waiting => holds.waiting += 1,
                Phase::Running(_) => holds.running += 1,
                Phase::Burying => holds.burying += 1,
                Phase::Decided(_) | Phase::Settling(_) => continue,
            }
            let (since, born) = (before(entry.held_until, max_hold), entry.delivery.born);
            if since.is_some() && (holds.since.is_none() || since < holds.since) {
                (holds.since, first) = (since, Some(&entry.delivery));
            }
            holds.oldest = [holds.oldest, born].into_iter().flatten().min();
        }
        holds.first = first.cloned();
        holds
    }

    fn received(&self, ticket: Ticket) -> Option<Received> {
        let mut state = self.lock();
        state.entry(ticket).map(|entry| entry.delivery.clone())
    }

    fn resize(&self, topic: usize, before: (usize, usize), now: (usize, usize)) {
        self.lock().loads[topic].resize(before, now);
        self.freed.notify_waiters();
    }

    fn is_assigned(&self, topic: &Topic) -> Option<bool> {
        self.consumer.is_assigned(topic)
    }

    fn lag(&self, topic: &Topic) -> Option<u64> {
        self.consumer.lag(topic)
    }

    fn settle_at(&self, ticket: Ticket, how: Settlement, horizon: Instant) {
        if how == Settlement::HandBack {
            let mut state = self.lock();
            if state.intake_open {
                let Some(entry) = state.entry(ticket).filter(|entry| !entry.is_settled()) else {
                    return;
                };
                // It would come straight back to our own receive, and spend an attempt each time.
                entry.phase = Phase::Waiting;
                state.put_back.push(ticket);
                return;
            }
        }
        self.settle_now(ticket, how, horizon);
    }

    fn hand_back(&self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            // Lost, or on its way back already: what is behind a lost message of a batch is given
            // up while it waits in its queue.
            let goes = |entry: &&mut Entry<C::Lease>| !entry.is_settled();
            let mut state = self.lock();
            if let Some(entry) = state.entry(ticket).filter(goes) {
                self.counters_of(entry).handed_back();
                drop(state);
                self.settle(ticket, Settlement::HandBack);
            }
        }
    }

    fn give_up(&self, ticket: Ticket) {
        match self.lock().entry(ticket) {
            Some(entry) => self.counters_of(entry).handed_back(),
            None => self.counters.handed_back(),
        }
        self.settle_now(ticket, Settlement::HandBack, Instant::now());
    }

    fn is_overtaken(&self, ticket: Ticket) -> bool {
        self.has_started_behind(ticket)
    }

    fn cut_off(&self, ticket: Ticket) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(ticket) {
            let id = entry.delivery.id.clone();
            state.cut_off.push(id);
        }
        drop(state);
        self.hand_back(vec![ticket]);
    }

    fn describe(&self, delivery: Option<&Delivery>, attributes: &mut Attributes) {
        self.consumer.describe(delivery, attributes);
    }

    fn settles(&self, ticket: Ticket, of: &Arc<Origin>, attempt: SpanContext, how: Settlement) {
        let Some(message) = self.received(ticket) else {
            return;
        };
        let start = || span::settling(of, &*self.consumer, how, &attempt);
        let member = Member {
            message,
            attempt: attempt.clone(),
            failed: None,
        };
        self.spans.join(ticket, member, of, how, start);
    }

    fn settles_in(&self, ticket: Ticket, span: Span) {
        self.spans.open(ticket, span);
    }

    fn fatal(&self, error: kratos::Error) {
        self.fatal.set(error);
    }
}

impl<C: Consumer> Table<C> {
    /// The counters of the subscription that an entry belongs to.
    pub(super) fn counters_of(&self, entry: &Entry<C::Lease>) -> &Counters {
        let routes = self.parts.get(entry.topic);
        let part = routes.and_then(|routes| routes.get(entry.route));
        // What no subscription wants is the server's.
        part.unwrap_or(&self.counters)
    }

    /// What follows for a message that was to start and could not.
    fn refuse(&self, ticket: Ticket) {
        let mut state = self.lock();
        let closing = state.closing;
        let waits = |entry: &mut Entry<_>| matches!(entry.phase, Phase::Waiting);
        // Else it is gone, or was given up while it waited.
        if state.entry(ticket).is_some_and(waits) {
            drop(state);
            if closing {
                self.cut_off(ticket);
            } else {
                self.lost(ticket);
            }
        }
    }
}
