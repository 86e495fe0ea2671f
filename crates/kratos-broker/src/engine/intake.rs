//! The task that receives one topic of one group, never more than there is room for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::trace::Attributes;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    counters::Counters,
    health::HealthBoard,
    lane::Desk,
    metrics,
    queue::{Arrived, Queue},
    span::{Origin, Receiving},
    table::Table,
};
use crate::{
    Backoff, Delivery, Error, Topic,
    driver::{Capabilities, Consumer, Filter, Leased, Room, Settlement},
};

/// First and longest wait after a failed receive.
const BACKOFF: Backoff =
    Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5)).jitter(0.5);

/// At most one line of log per this time while receives fail.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Room is offered in portions of at least this many messages while others still wait here: a
/// receive per message would cost a round trip per message.
const PORTION: usize = 16;

/// The route of a message that no subscription wants.
const UNROUTED: usize = usize::MAX;

/// One topic's intake.
pub(crate) struct Intake<C: Consumer> {
    pub(crate) table: Arc<Table<C>>,
    /// The topic's number in the table.
    pub(crate) number: usize,
    pub(crate) topic: Topic,
    pub(crate) origin: Arc<Origin>,
    pub(crate) routes: Vec<(Filter, Arc<Queue>)>,
    /// Of each route.
    pub(crate) parts: Vec<Counters>,
    pub(crate) capacity: usize,
    pub(crate) capabilities: Capabilities,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) counters: Counters,
    /// Wakes when a queue has nothing ready any more.
    pub(crate) hungry: Arc<Notify>,
    /// Receive no more.
    pub(crate) stop: CancellationToken,
    /// The driver receives no more: what has arrived is there to be fetched.
    pub(crate) stopped: CancellationToken,
    /// A subscription has no room, because of others that are paused.
    pub(crate) starved: AtomicBool,
}

/// What a receive is made with.
#[derive(Clone, Copy)]
enum Offer {
    /// Room that is worth asking for.
    Portion(Room),
    /// Only what the driver may have asked for already.
    Owed(Room),
}

impl Offer {
    fn room(self) -> Room {
        match self {
            Self::Portion(room) | Self::Owed(room) => room,
        }
    }
}

impl<C: Consumer> Intake<C> {
    /// Receives until it is told to stop and everything that has arrived is taken over.
    pub(crate) async fn run(self) {
        self.receive().await;
        self.stopped.cancelled().await;
        self.rest().await;
    }

    async fn receive(&self) {
        let mut failures: u32 = 0;
        let mut logged: Option<Instant> = None;
        let mut arrived = Vec::new();
        // Of the room that was offered last, what has not come back. The driver may have asked for
        // it, and have it by now: nobody extends a lease that is not in the table.
        let mut owed = 0;
        let mut sampled = false;
        while let Some(offer) = self.offer(owed).await {
            let room = offer.room();
            let (receiving, begun) = (Receiving::begin(&self.origin, sampled), metrics::begin());
            let received = tokio::select! {
                biased;
                received = self.table.consumer().receive(&self.topic, room) => received,
                // Dropping the call loses nothing.
                () = self.portion(), if matches!(offer, Offer::Owed(_)) => continue,
            };
            owed = room.messages;
            match received {
                Ok(batch) => {
                    let brought = batch.iter().map(|leased| &leased.delivery);
                    let describe = |to: &mut Attributes| self.table.consumer().describe(None, to);
                    sampled = receiving.brought(&self.origin, brought, describe);
                    if !batch.is_empty() {
                        metrics::received(&self.origin, begun, None);
                    }
                    owed = owed.saturating_sub(batch.len());
                    if failures > 0 {
                        failures = 0;
                        tracing::info!(topic = %self.topic, "receiving again");
                        self.health.recovered(&receive_part(&self.topic));
                    }
                    self.accept(batch, &mut arrived);
                    // A driver that answers at once with nothing must not starve the others.
                    tokio::task::coop::consume_budget().await;
                }
                Err(_) if self.stop.is_cancelled() => return,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    receiving.failed(&self.origin, &error);
                    metrics::received(&self.origin, begun, Some(&error));
                    self.failed(&error, &mut logged);
                    tokio::select! {
                        () = sleep(BACKOFF.after(failures)) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Fetches what had arrived when the driver stopped. It would be handed back unseen otherwise,
    /// a message on its last attempt too.
    async fn rest(&self) {
        loop {
            // What the driver holds for us fits into the newest room that it was told.
            let room = self.table.room(self.number, 0);
            let room = Room::new(room.messages.max(1), room.bytes.max(1));
            match self.table.consumer().receive(&self.topic, room).await {
                Ok(batch) if !batch.is_empty() => self.accept(batch, &mut Vec::new()),
                Ok(_) | Err(_) => return,
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Waits until there is something to receive; `None` when to stop.
    async fn offer(&self, owed: usize) -> Option<Offer> {
        loop {
            let changed = self.hungry.notified();
            let freed = self.table.freed().notified();
            tokio::pin!(changed, freed);
            changed.as_mut().enable();
            freed.as_mut().enable();
            if self.stop.is_cancelled() {
                return None;
            }
            let room = self.wanted();
            self.tell_who_starves(room);
            if let Some(room) = room.filter(|room| self.is_portion(*room)) {
                return Some(Offer::Portion(room));
            }
            // With no more room than the driver has used up already it asks for nothing.
            let owed = room.map_or(0, |room| room.messages).min(owed);
            if let (Some(room), 1..) = (room, owed) {
                return Some(Offer::Owed(Room::new(owed, room.bytes)));
            }
            tokio::select! {
                () = freed => {}
                () = changed => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Waits until it is worth while to ask for more, or there is nothing to be received at all.
    async fn portion(&self) {
        loop {
            let changed = self.hungry.notified();
            let freed = self.table.freed().notified();
            tokio::pin!(changed, freed);
            changed.as_mut().enable();
            freed.as_mut().enable();
            let stopped = self.stop.is_cancelled();
            if stopped || self.wanted().is_none_or(|room| self.is_portion(room)) {
                return;
            }
            tokio::select! {
                () = freed => {}
                () = changed => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// What there is room for, if anybody wants more.
    fn wanted(&self) -> Option<Room> {
        let wanted = self.routes.iter().any(|(_, queue)| queue.wants_more());
        wanted.then(|| self.table.room(self.number, self.least()))
    }

    /// A broker has one stream per topic and group: what a paused subscription has received stays in
    /// the room of all.
    fn tell_who_starves(&self, room: Option<Room>) {
        if self.routes.len() < 2 {
            return;
        }
        let full = room.is_some_and(|room| room.messages == 0);
        let reason = full.then(|| self.starvation()).flatten();
        if self.starved.swap(reason.is_some(), Relaxed) == reason.is_some() {
            return;
        }
        let part = room_part(&self.topic);
        match reason {
            Some(reason) => {
                tracing::warn!("{reason}");
                self.health.troubled(&part, reason, false);
            }
            None => self.health.recovered(&part),
        }
    }

    /// Which subscriptions fill the room though they are paused, while which others are idle.
    fn starvation(&self) -> Option<String> {
        let (mut fill, mut idle, mut waiting) = (Vec::new(), Vec::new(), 0);
        for (filter, queue) in &self.routes {
            if queue.is_hungry() {
                idle.push(filter.to_string());
            } else if !queue.wants_more() {
                fill.push(filter.to_string());
                waiting += queue.waiting();
            }
        }
        let starves = waiting > 0 && !idle.is_empty();
        starves.then(|| {
            let (topic, fill, idle) = (&self.topic, fill.join(", "), idle.join(", "));
            format!(
                "topic {topic}: filter {fill} is paused, and its {waiting} messages take all the \
                 room of the group's subscriptions: filter {idle} receives nothing meanwhile (a \
                 group of its own would)"
            )
        })
    }

    /// Room for less than that is offered only while lanes are idle.
    fn least(&self) -> usize {
        PORTION.min(self.capacity.div_ceil(2))
    }

    fn is_portion(&self, room: Room) -> bool {
        room.messages >= self.least() || (room.messages > 0 && self.lanes_idle())
    }

    /// Of any subscription: an idle one does not wait for the next portion of a busy one beside it,
    /// which may take long. What is asked for meanwhile is what was done during the last round trip.
    fn lanes_idle(&self) -> bool {
        self.routes.iter().any(|(_, queue)| queue.is_hungry())
    }

    fn accept(&self, batch: Vec<Leased<C::Lease>>, arrived: &mut Vec<Arrived>) {
        let route = |delivery: &Delivery| {
            let mut filters = self.routes.iter().map(|(filter, _)| filter);
            let route = filters.position(|filter| filter.accepts_tag(delivery.tag()));
            route.unwrap_or(UNROUTED)
        };
        self.table.insert(self.number, batch, route, arrived);
        for (route, ((_, queue), counters)) in self.routes.iter().zip(&self.parts).enumerate() {
            let mut received = 0;
            for it in arrived.iter_mut().filter(|it| it.route == route) {
                // In a batch that is one unit the broker gives nothing up by itself.
                it.job.must_finish = self.capabilities.counts_hand_back()
                    && !it.in_batch
                    && it.job.delivery.is_last_delivery();
                queue.assign(it);
                received += 1;
            }
            counters.received(received);
            for job in queue.push(arrived, route) {
                if job.must_finish {
                    self.table.cut_off(job.ticket);
                } else {
                    self.table.hand_back(vec![job.ticket]);
                }
            }
        }
        for Arrived { job, .. } in arrived.drain(..) {
            // Brokers filter tags by hash: this one has the hash of another.
            self.counters.received(1);
            self.counters.unrouted();
            self.table.settle(job.ticket, Settlement::Ack);
        }
    }

    fn failed(&self, error: &Error, logged: &mut Option<Instant>) {
        self.counters.receive_failed();
        let error = kratos::error_chain(error);
        let reason = format!("cannot receive from topic {}: {error}", self.topic);
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(topic = %self.topic, %error, "cannot receive, will try again");
        }
        self.health
            .troubled(&receive_part(&self.topic), reason, false);
    }
}

/// How the health calls a topic's intake. No subscription is called so.
pub(super) fn receive_part(topic: &Topic) -> String {
    format!("receive {topic}")
}

/// How the health calls a topic's room.
pub(super) fn room_part(topic: &Topic) -> String {
    format!("room of {topic}")
}
