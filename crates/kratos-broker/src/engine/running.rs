//! All tasks of a server, from start to drain.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    burial::{Burials, Post, Undertaker},
    control::{self, Control, Controls, Letters, Notes, Reader, Watched},
    counters::Counters,
    fatal::Fatal,
    health::HealthBoard,
    heart,
    intake::Intake,
    keeper,
    lane::{Desk, LaneSettings, Part},
    lanes::{LaneCount, Nursery, Parent},
    metrics::{Metrics, Settlements},
    queue::Queue,
    span::Origin,
    switch::Switch,
    table::{Limit, Table},
};
use crate::{
    DeadLetter,
    driver::{Capabilities, Consumer},
    extensions::Extensions,
    router::{GroupPlan, TopicPlan},
};

/// The wait after a driver has told of no settlement at all.
const EMPTY_ANSWER_PAUSE: Duration = Duration::from_millis(10);

/// A server that consumes. Dropping it ends all its tasks.
pub(crate) struct Running<C: Consumer> {
    pub(crate) groups: Vec<RunningGroup<C>>,
    pub(crate) lanes: JoinSet<()>,
    pub(crate) nursery: Nursery,
    /// Lease keepers, and who hears of settlements.
    pub(crate) helpers: JoinSet<()>,
    pub(crate) stop: CancellationToken,
    /// Nothing can be waited for any more.
    pub(crate) cut: CancellationToken,
    pub(crate) fatal: Arc<Fatal>,
    pub(crate) controls: Controls,
}

/// One group's table and queues.
pub(crate) struct RunningGroup<C: Consumer> {
    pub(crate) table: Arc<Table<C>>,
    /// Of each topic, by its number in the table.
    pub(crate) queues: Vec<Vec<Arc<Queue>>>,
    pub(crate) intakes: JoinSet<()>,
    /// Told to the intakes when the driver has stopped receiving.
    pub(crate) stopped: CancellationToken,
}

/// What the server gives to every task.
pub(crate) struct Shared {
    /// The server's name.
    pub(crate) server: Arc<str>,
    pub(crate) system: &'static str,
    /// Where the broker is.
    pub(crate) address: Option<(String, u16)>,
    pub(crate) capabilities: Capabilities,
    pub(crate) extensions: Arc<Extensions>,
    pub(crate) counters: Counters,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) controls: Controls,
    /// Publishes dead letters.
    pub(crate) post: Arc<dyn Post>,
    /// Reads them, and sends them back.
    pub(crate) reader: Arc<dyn Reader>,
}

/// Why a server that runs begins to stop by itself.
#[derive(Debug)]
pub(crate) enum Broken {
    /// A handler said so.
    Fatal,
    /// A task of the engine or the driver panicked.
    Crashed(Option<JoinError>),
}

impl<C: Consumer> Running<C> {
    pub(crate) fn start(groups: Vec<(GroupPlan, C)>, shared: &Shared) -> Self {
        let mut running = Self {
            groups: Vec::with_capacity(groups.len()),
            lanes: JoinSet::new(),
            nursery: Nursery::default(),
            helpers: JoinSet::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            fatal: Arc::default(),
            controls: shared.controls.clone(),
        };
        for (plan, consumer) in groups {
            running.start_group(plan, consumer, shared);
        }
        running.helpers.spawn(heart::run(shared.controls.clone()));
        running
    }

    /// Completes when something breaks; never otherwise.
    ///
    /// # Cancel safety
    ///
    /// A crash that was noticed is lost with the call: the caller drains then anyway.
    pub(crate) async fn broken(&mut self) -> Broken {
        loop {
            tokio::select! {
                () = self.fatal.happened() => return Broken::Fatal,
                ended = intake_ended(&mut self.groups) => return Broken::Crashed(ended.err()),
                Some(ended) = self.lanes.join_next() => match ended {
                    // One too many.
                    Ok(()) => {}
                    Err(crash) => return Broken::Crashed(Some(crash)),
                },
                Some(ended) = self.helpers.join_next() => return Broken::Crashed(ended.err()),
                () = self.nursery.awaited() => self.nursery.grow(&mut self.lanes),
            }
        }
    }

    fn start_group(&mut self, plan: GroupPlan, consumer: C, shared: &Shared) {
        let limits = plan.topics.iter().map(TopicPlan::limit);
        let table = Table::new(
            Arc::new(consumer),
            limits,
            shared.counters.clone(),
            self.fatal.clone(),
        );
        let parts: Vec<Vec<Counters>> = plan
            .topics
            .iter()
            .map(|topic| {
                topic
                    .routes
                    .iter()
                    .map(|_| shared.counters.part())
                    .collect()
            })
            .collect();
        let origins: Vec<Arc<Origin>> = plan
            .topics
            .iter()
            .map(|topic| {
                let (group, name) = (plan.group.clone(), topic.topic.clone());
                let origin = Origin::new(shared.system, shared.address.clone(), group, name);
                Arc::new(origin)
            })
            .collect();
        let measured = origins.iter().cloned().map(Settlements::new).collect();
        let table = Arc::new(table.with_parts(parts.clone()).measured(measured));
        self.helpers.spawn(settlements(table.clone()));
        let (mut queues, mut intakes) = (Vec::new(), JoinSet::new());
        let stopped = CancellationToken::new();
        let one_topic = plan.topics.len() == 1;
        let topics = plan.topics.into_iter().zip(origins).zip(parts);
        for (number, ((topic, origin), parts)) in topics.enumerate() {
            let hungry = Arc::new(Notify::new());
            let capacity = topic.limit().messages;
            let (mut routes, mut topics) = (Vec::new(), Vec::new());
            for ((subscription, lanes), counters) in topic.routes.into_iter().zip(&parts) {
                let desk: Arc<dyn Desk> = table.clone();
                let name = subscription.to_string();
                let queue = Arc::new(Queue::new(&subscription, hungry.clone()));
                let notes = Arc::<Notes>::default();
                let undertaker = match subscription.dead_letter.clone() {
                    DeadLetter::Native => None,
                    DeadLetter::Topic(dead) => {
                        let (undertaker, arrivals) = Undertaker::new(dead);
                        let burials = Burials {
                            post: shared.post.clone(),
                            desk: desk.clone(),
                            origin: origin.clone(),
                            queue: queue.clone(),
                            counters: counters.clone(),
                            health: shared.health.clone(),
                            name: name.clone(),
                            troubled: AtomicUsize::new(0),
                            native: shared.capabilities.can_dead_letter(),
                            stop: self.stop.clone(),
                            cut: self.cut.clone(),
                        };
                        self.lanes.spawn(burials.run(arrivals));
                        Some(undertaker)
                    }
                };
                let switch = subscription.kill_switch.clone().map(|settings| {
                    let (health, counters) = (shared.health.clone(), counters.clone());
                    Arc::new(Switch::new(settings, name, queue.clone(), health, counters))
                });
                let count =
                    LaneCount::new(subscription.clone(), number, queue.clone(), &self.nursery);
                let count = Arc::new(count);
                let filter = subscription.filter.to_string();
                let id = control::id(&shared.server, &subscription.topic, &plan.group, &filter);
                let settings = Arc::new(LaneSettings {
                    origin: origin.clone(),
                    part: Arc::new(Part(id)),
                    metrics: Metrics::new(&origin),
                    policy: subscription.policy.clone(),
                    ordered_policy: subscription.ordered_policy.clone(),
                    handler_timeout: subscription.handler_timeout,
                    undertaker,
                    switch: switch.clone(),
                    notes: notes.clone(),
                    counters: counters.clone(),
                });
                shared.controls.add(Control::new(
                    &shared.server,
                    &subscription,
                    &plan.group,
                    (number, routes.len()),
                    Watched {
                        queue: queue.clone(),
                        desk: Some(Arc::downgrade(&desk)),
                        notes,
                        counters: counters.clone(),
                        switch,
                        health: shared.health.clone(),
                        lanes: count.clone(),
                        letters: Letters::new(
                            &shared.reader,
                            &subscription,
                            &plan.group,
                            one_topic,
                            shared.controls.at_work(),
                            &self.stop,
                        ),
                    },
                ));
                let parent = Parent {
                    lanes,
                    queue: queue.clone(),
                    desk: Arc::downgrade(&desk),
                    settings,
                    extensions: shared.extensions.clone(),
                    count,
                };
                for _ in 0..subscription.concurrency {
                    parent.lane(&mut self.lanes);
                }
                self.nursery.add(parent);
                topics.push(queue.clone());
                routes.push((subscription.filter, queue));
            }
            queues.push(topics);
            let intake = Intake {
                table: table.clone(),
                number,
                topic: topic.topic,
                origin,
                routes,
                parts,
                capacity,
                capabilities: shared.capabilities,
                health: shared.health.clone(),
                counters: shared.counters.clone(),
                hungry,
                stop: self.stop.clone(),
                stopped: stopped.clone(),
                starved: AtomicBool::new(false),
            };
            intakes.spawn(intake.run());
        }
        let all_queues = queues.iter().flatten().cloned().collect();
        self.helpers
            .spawn(keeper::run(table.clone(), all_queues, plan.invisible));
        self.groups.push(RunningGroup {
            table,
            queues,
            intakes,
            stopped,
        });
    }
}

/// Completes when an intake ends, which none does before the stop.
async fn intake_ended<C: Consumer>(groups: &mut [RunningGroup<C>]) -> Result<(), JoinError> {
    poll_fn(|cx| {
        for group in groups.iter_mut() {
            if let Poll::Ready(Some(ended)) = group.intakes.poll_join_next(cx) {
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

/// Hears of settlements until it is dropped.
async fn settlements<C: Consumer>(table: Arc<Table<C>>) {
    loop {
        let answers = table.consumer().settled().await;
        if answers.is_empty() {
            // The trait says at least one; a driver that says none must not make this a hot loop.
            sleep(EMPTY_ANSWER_PAUSE).await;
        }
        table.settled(answers);
    }
}

impl TopicPlan {
    /// What all its subscriptions may have in flight together.
    fn limit(&self) -> Limit {
        let subscriptions = || self.routes.iter().map(|(subscription, _)| subscription);
        Limit {
            messages: subscriptions().map(crate::Subscription::capacity).sum(),
            messages_max: subscriptions().map(crate::Subscription::capacity_max).sum(),
            bytes: subscriptions()
                .map(|s| s.prefetch_bytes)
                .fold(0, usize::saturating_add),
            max_hold: subscriptions()
                .map(|s| s.max_hold)
                .max()
                .unwrap_or(Duration::ZERO),
        }
    }
}
