//! The lease table of one group: every message from its receipt to its settlement's confirmation.

mod batch;
mod desk;
mod leases;
mod load;
mod places;
mod probes;
mod spans;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{leases::Due, load::Limit, spans::Member};
use self::{
    load::Load,
    places::{Entry, Phase, State, ticket},
    probes::Probes,
    spans::Spans,
};
use super::{
    cell::{Cancel, LaneCell},
    counters::Counters,
    fatal::Fatal,
    lane::Desk,
    metrics::Settlements,
    queue::{Arrived, Job},
    ticket::Ticket,
};
use crate::{
    Delivery, MessageId,
    clock::after,
    delivery::Received,
    driver::{Consumer, Leased, Room, Settled, Settlement},
};

/// One group's messages in flight, and its consumer.
pub(crate) struct Table<C: Consumer> {
    consumer: Arc<C>,
    counters: Counters,
    /// Of each subscription, by topic and route; part of the above.
    parts: Vec<Vec<Counters>>,
    state: Mutex<State<C::Lease>>,
    /// Something left the table.
    freed: Notify,
    fatal: Arc<Fatal>,
    /// Of settlements that are not confirmed.
    spans: Spans,
    /// How long they take; `None` while nobody reads metrics.
    probes: Option<Probes>,
}

// === impl Table ===

impl<C: Consumer> Table<C> {
    pub(crate) fn new(
        consumer: Arc<C>,
        limits: impl IntoIterator<Item = Limit>,
        counters: Counters,
        fatal: Arc<Fatal>,
    ) -> Self {
        let loads = limits.into_iter().map(Load::new);
        let state = State {
            places: Vec::new(),
            free: Vec::new(),
            loads: loads.collect(),
            cut_off: Vec::new(),
            intake_open: true,
            put_back: Vec::new(),
            gone: Vec::new(),
            draining: false,
            closing: false,
        };
        Self {
            consumer,
            counters,
            parts: Vec::new(),
            state: Mutex::new(state),
            freed: Notify::new(),
            fatal,
            spans: Spans::default(),
            probes: None,
        }
    }

    /// Measures settlements, by topic; `None` while nobody reads metrics.
    pub(crate) fn measured(mut self, topics: Option<Vec<Settlements>>) -> Self {
        self.probes = topics.map(Probes::new);
        self
    }

    /// Counts for each subscription, by topic and route.
    pub(crate) fn with_parts(mut self, parts: Vec<Vec<Counters>>) -> Self {
        self.parts = parts;
        self
    }

    pub(crate) fn consumer(&self) -> &Arc<C> {
        &self.consumer
    }

    pub(crate) fn into_consumer(self) -> Arc<C> {
        self.consumer
    }

    /// Enters what was received for a topic; `route` tells for which of its subscriptions. They
    /// go to the end of `arrived`.
    pub(crate) fn insert(
        &self,
        topic: usize,
        batch: Vec<Leased<C::Lease>>,
        route: impl Fn(&Delivery) -> usize,
        arrived: &mut Vec<Arrived>,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let held_until = after(now, state.loads[topic].max_hold());
        // What is made here is made where it stays: a value that is put together elsewhere and then
        // copied is waited for, which takes longer than to make it.
        arrived.extend(batch.into_iter().map(|leased| {
            let route = route(&leased.delivery);
            state.loads[topic].enter(leased.delivery.body().len());
            let (ticket, entry) = state.vacant();
            let Leased {
                delivery,
                lease,
                expires_at,
                place,
            } = leased;
            let delivery = Received::from(delivery);
            let in_batch = place.is_some();
            entry.get_or_insert_with(|| Entry {
                delivery: delivery.clone(),
                topic,
                route,
                lease: Some(lease),
                expires_at,
                held_until,
                place,
                batch_lost: false,
                phase: Phase::Waiting,
            });
            Arrived::new(Job::new(ticket, delivery), route, in_batch)
        }));
    }

    /// What a topic has room for; no messages if there is none. Less than `portion` is waited for.
    pub(crate) fn room(&self, topic: usize, portion: usize) -> Room {
        let now = Instant::now();
        self.lock().loads[topic].room(portion, now)
    }

    /// Wakes when something has left the table, or a topic has the room that is waited for.
    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// How many messages are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().loads.iter().map(Load::in_flight).sum()
    }

    /// Whether all that runs of a topic was received within this time.
    pub(crate) fn is_brisk(&self, topic: usize, within: Duration) -> bool {
        let state = self.lock();
        // When renewal of a lease that is received now would end.
        let newest = after(Instant::now(), state.loads[topic].max_hold());
        let entries = state.places.iter().filter_map(|place| place.entry.as_ref());
        entries
            .filter(|entry| entry.topic == topic && matches!(entry.phase, Phase::Running(_)))
            .all(|entry| newest.saturating_duration_since(entry.held_until) <= within)
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn emptied(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// The driver has answered settlements.
    pub(crate) fn settled(&self, answers: Vec<Settled>) {
        self.spans.answered(&answers);
        if let Some(probes) = &self.probes {
            let topic = |ticket| self.lock().entry(ticket).map(|entry| entry.topic);
            probes.answered(&answers, topic);
        }
        let mut state = self.lock();
        let (mut lost, mut refused, mut confirmed) = (Vec::new(), Vec::new(), 0);
        for Settled { ticket, result } in answers {
            let Err(error) = result else {
                confirmed += usize::from(state.confirm(ticket));
                continue;
            };
            let Some(entry) = state.remove(ticket) else {
                continue;
            };
            if let Some(place) = entry.place.filter(|_| entry.is_done()) {
                lost.push(place);
                self.counters_of(&entry).repeated();
                if state.draining {
                    state.cut_off.push(entry.delivery.id.clone());
                }
            }
            refused.push((entry.delivery, error));
        }
        drop(state);
        self.counters.confirmed(confirmed);
        // Not under the lock: who takes the log may be slow.
        for (delivery, error) in refused {
            self.counters.refused();
            tracing::warn!(
                topic = %delivery.topic, message.id = %delivery.id,
                error = %kratos::error_chain(&error),
                "settlement given up, the message may come again",
            );
        }
        for place in lost {
            self.give_up_behind(place);
        }
        self.freed.notify_waiters();
    }

    /// The server begins to stop.
    pub(crate) fn begin_drain(&self) {
        self.lock().draining = true;
    }

    /// Cuts off every handler that runs, and lets no other start.
    pub(crate) fn cancel_running(&self) {
        let mut state = self.lock();
        state.closing = true;
        for (at, place) in state.places.iter().enumerate() {
            if let Some(Entry {
                phase: Phase::Running(cell),
                ..
            }) = &place.entry
            {
                cell.cancel(ticket(at, place.generation), Cancel::Shutdown);
            }
        }
    }

    /// Nothing more is received: what is to be handed back goes now.
    pub(crate) fn intake_ended(&self) {
        let mut state = self.lock();
        state.intake_open = false;
        let put_back = std::mem::take(&mut state.put_back);
        drop(state);
        for ticket in put_back {
            self.settle(ticket, Settlement::HandBack);
        }
    }

    /// The ids of messages that were cut off or are not settled for certain.
    pub(crate) fn unfinished(&self) -> Vec<MessageId> {
        let mut state = self.lock();
        let mut ids = std::mem::take(&mut state.cut_off);
        let entries = state.places.iter().filter_map(|place| place.entry.as_ref());
        ids.extend(entries.map(|entry| entry.delivery.id.clone()));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Settles a message whose lease is here, or notes what to do with it when it is back.
    fn settle_now(&self, ticket: Ticket, how: Settlement, horizon: Instant) {
        let mut state = self.lock();
        if let Some((lease, _, room)) = state.settle(ticket, how, horizon) {
            drop(state);
            return self.hand_over(ticket, lease, how, room);
        }
        let Some(entry) = state.entry(ticket) else {
            drop(state);
            return self.spans.lost(ticket);
        };
        if entry.lease.is_some() {
            // The message is somebody else's by now: nothing may be settled.
            drop(state);
            self.lost(ticket);
        } else if !matches!(entry.phase, Phase::Settling(_)) {
            entry.phase = Phase::Decided(how);
        }
    }

    /// The driver takes over. `room`: the intake has what it waits for.
    fn hand_over(&self, ticket: Ticket, lease: C::Lease, how: Settlement, room: bool) {
        if let Some(probes) = &self.probes {
            probes.begin(ticket, how);
        }
        self.consumer.settle(ticket, lease, how);
        if room {
            self.freed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<C::Lease>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DeliveryParts, Result, Topic,
        clock::{Recently, from_now},
        driver::BatchPlace,
    };

    /// Takes settlements and never answers.
    struct Mute;

    impl Consumer for Mute {
        type Lease = ();

        async fn receive(&self, _: &Topic, _: Room) -> Result<Vec<Leased<()>>> {
            std::future::pending().await
        }

        fn settle(&self, _: Ticket, (): (), _: Settlement) {}

        async fn settled(&self) -> Vec<Settled> {
            std::future::pending().await
        }

        async fn extend(&self, (): &mut (), by: Duration) -> Result<Instant> {
            Ok(from_now(by))
        }

        async fn stop_receiving(&self) {}

        async fn close(self, _: Instant) -> Result<()> {
            Ok(())
        }
    }

    /// A batch of two that is one unit, in a table.
    fn batch_of_two(counters: &Counters) -> (Table<Mute>, [Ticket; 2]) {
        let limit = Limit {
            messages: 8,
            messages_max: 8,
            bytes: 1 << 20,
            max_hold: Duration::from_secs(3600),
        };
        let table = Table::new(Arc::new(Mute), [limit], counters.clone(), Arc::default());
        let leased = |index| Leased {
            delivery: DeliveryParts::new("id", "t", "").into(),
            lease: (),
            expires_at: from_now(Duration::from_secs(10)),
            place: Some(BatchPlace { batch: 1, index }),
        };
        let mut arrived = Vec::new();
        table.insert(0, vec![leased(0), leased(1)], |_| 0, &mut arrived);
        let tickets = [arrived[0].job.ticket, arrived[1].job.ticket];
        (table, tickets)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_while_it_waited_is_not_handed_back_again() {
        let counters = Counters::default();
        let (table, [first, second]) = batch_of_two(&counters);
        table.lost(first);
        // The drain finds it in its queue.
        table.hand_back(vec![second]);
        table.settled(vec![Settled {
            ticket: second,
            result: Ok(()),
        }]);
        assert_eq!((table.in_flight(), counters.stats().handed_back), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_has_not_looked_at_the_clock_starts_nothing_whose_lease_is_over() {
        let counters = Counters::default();
        let (table, [first, _]) = batch_of_two(&counters);
        tokio::time::advance(Duration::from_secs(9)).await;
        let mut recently = Recently::new();
        tokio::time::advance(Duration::from_secs(2)).await;
        let cell = Arc::new(LaneCell::new(Arc::default()));
        assert_eq!(table.start(first, &cell, recently.horizon()), None);
        assert_eq!(
            counters.stats().leases_lost,
            2,
            "and that of the one behind"
        );
    }

    /// Looks whether the table's lock is free, for each line of the log.
    struct LockWatch(Arc<Table<Mute>>, Arc<Mutex<Vec<bool>>>);

    impl tracing::Subscriber for LockWatch {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            let free = self.0.state.try_lock().is_ok();
            self.1.lock().unwrap().push(free);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_logged_under_the_lock() {
        let (table, [first, second]) = batch_of_two(&Counters::default());
        let (table, lines) = (Arc::new(table), Arc::default());
        let watch = LockWatch(table.clone(), Arc::clone(&lines));
        tracing::subscriber::with_default(watch, || {
            table.settle(first, Settlement::Ack);
            let error = crate::Error::invalid("refused");
            table.settled(vec![Settled {
                ticket: first,
                result: Err(error),
            }]);
            table.lost(second);
        });
        let lines = lines.lock().unwrap();
        assert!(
            lines.len() >= 2 && lines.iter().all(|free| *free),
            "{lines:?}"
        );
    }
}
