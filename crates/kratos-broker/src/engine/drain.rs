//! The end of a server: intake stops, work is drained, settlements are confirmed, groups are left.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use kratos::Shutdown;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Running,
    lane::Desk,
    queue::{Drained, Queue},
    table::Table,
};
use crate::{MessageId, driver::Consumer};

/// How long a driver may take to end its receives.
const RECEIVE_STOP_MAX: Duration = Duration::from_secs(2);

/// How long a receive may take to return after the driver has said that it stopped.
const RECEIVE_END_MAX: Duration = Duration::from_millis(500);

/// How long aborted tasks may take to let go of the consumer, and how often that is looked at.
const LET_GO_MAX: Duration = Duration::from_millis(100);
const LET_GO_EVERY: Duration = Duration::from_millis(1);

/// For how long a stop lets messages start that wait where they are soon through: what is received
/// ahead is what is handled in about this time.
const WORK_OFF: Duration = Duration::from_millis(50);

/// They are where all that runs was received no longer ago than this.
const SOON: Duration = Duration::from_millis(100);

/// How often it is looked at whether any still waits.
const WORK_OFF_EVERY: Duration = Duration::from_millis(1);

/// How long a server drains that stops by itself.
const OWN_DRAIN: Duration = Duration::from_secs(5);

/// The times of one drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Handlers are cut off, unless [`Shutdown::now`] says so before.
    cut: Instant,
    /// Settlements are waited for until then.
    flush: Instant,
    /// Groups are left by then.
    close: Instant,
}

impl Deadlines {
    /// From the stop's deadline; the server's own if it stops by itself.
    pub(crate) fn new(shutdown: &Shutdown) -> Self {
        let now = Instant::now();
        let deadline = shutdown.deadline().unwrap_or(now + OWN_DRAIN);
        let left = deadline.saturating_duration_since(now);
        // The App cuts off earlier; this is for those who do not.
        let reserve = (left / 10).min(Duration::from_secs(1));
        Self {
            cut: deadline - reserve,
            flush: deadline - reserve / 2,
            close: deadline - reserve / 8,
        }
    }

    /// Receives are waited for until then: before they have ended nothing is handed back.
    fn intake(&self) -> Instant {
        let now = Instant::now();
        now + self.flush.saturating_duration_since(now) * 2 / 3
    }

    /// Each the earlier of both.
    fn earlier(self, newer: Self) -> Self {
        Self {
            cut: self.cut.min(newer.cut),
            flush: self.flush.min(newer.flush),
            close: self.close.min(newer.close),
        }
    }
}

impl<C: Consumer> Running<C> {
    /// Drains, and returns the ids of the messages that are not finished for certain.
    pub(crate) async fn drain(mut self, shutdown: &Shutdown) -> Vec<MessageId> {
        let times = Deadlines::new(shutdown);
        self.stop.cancel();
        self.nursery.close();
        let mut endings = JoinSet::new();
        for group in &mut self.groups {
            group.table.begin_drain();
            let mut brisk = Vec::new();
            for (number, queues) in group.queues.iter().enumerate() {
                if group.table.is_brisk(number, SOON) {
                    brisk.push(queues.clone());
                } else {
                    hand_back_waiting(&group.table, queues, times.cut);
                }
            }
            endings.spawn(end_group(
                group.table.clone(),
                group.queues.clone(),
                brisk,
                times.cut,
                std::mem::take(&mut group.intakes),
                group.stopped.clone(),
            ));
        }
        tokio::select! {
            () = self.finish(&mut endings) => {}
            () = shutdown.now() => {}
            () = sleep_until(times.cut) => {}
        }
        // Whoever cuts may have brought the deadline forward.
        let times = times.earlier(Deadlines::new(shutdown));
        self.cut_off();
        self.flush(times, endings).await;
        self.leave(times).await
    }

    /// Waits for the end of intake, handlers and settlements without a limit.
    async fn finish(&mut self, endings: &mut JoinSet<()>) {
        join(endings).await;
        join(&mut self.lanes).await;
        join_all(self.groups.iter().map(|group| group.table.emptied())).await;
    }

    /// Cancels what runs and hands back what waits; both are reported. Nothing, after a full drain.
    fn cut_off(&mut self) {
        self.cut.cancel();
        for group in &self.groups {
            for queue in group.queues.iter().flatten() {
                for job in queue.close() {
                    group.table.cut_off(job.ticket);
                }
            }
            group.table.cancel_running();
        }
    }

    async fn flush(&mut self, times: Deadlines, mut endings: JoinSet<()>) {
        if timeout_at(times.intake(), join(&mut endings))
            .await
            .is_err()
        {
            // What is not received by now comes back when its lease is over.
            endings.shutdown().await;
            for group in &self.groups {
                group.table.intake_ended();
            }
        }
        let flushed = async {
            join(&mut self.lanes).await;
            join_all(self.groups.iter().map(|group| group.table.emptied())).await;
        };
        if timeout_at(times.flush, flushed).await.is_err() {
            let left: usize = self
                .groups
                .iter()
                .map(|group| group.table.in_flight())
                .sum();
            tracing::warn!(
                messages = left,
                "not all messages are settled at the deadline"
            );
        }
    }

    async fn leave(mut self, times: Deadlines) -> Vec<MessageId> {
        self.helpers.shutdown().await;
        self.lanes.abort_all();
        self.controls.end();
        let mut ids = Vec::new();
        let closes = std::mem::take(&mut self.groups).into_iter().map(|group| {
            ids.extend(group.table.unfinished());
            close(group.table, times.close)
        });
        join_all(closes.collect::<Vec<_>>()).await;
        ids
    }
}

/// Ends one group's intake, and works off what is `brisk`: no group waits for another's driver calls.
async fn end_group<C: Consumer>(
    table: Arc<Table<C>>,
    queues: Vec<Vec<Arc<Queue>>>,
    brisk: Vec<Vec<Arc<Queue>>>,
    cut: Instant,
    mut intakes: JoinSet<()>,
    stopped: CancellationToken,
) {
    let stop = async {
        let stop = table.consumer().stop_receiving();
        if timeout(RECEIVE_STOP_MAX, stop).await.is_err() {
            tracing::warn!("the driver did not stop receiving in time");
        }
    };
    let work_off = async {
        work_off(&brisk).await;
        brisk
            .iter()
            .for_each(|queues| hand_back_waiting(&table, queues, cut));
    };
    tokio::join!(stop, work_off);
    stopped.cancel();
    let ended = timeout(RECEIVE_END_MAX, join(&mut intakes)).await;
    if ended.is_err() {
        intakes.shutdown().await;
    }
    table.intake_ended();
    for queue in queues.iter().flatten() {
        queue.finish();
    }
}

/// Lets what waits start, for a moment: where a hand-back spends an attempt it would cost each of
/// them one, and they are handled sooner than they come again.
async fn work_off(topics: &[Vec<Arc<Queue>>]) {
    let until = Instant::now() + WORK_OFF;
    let waits = || topics.iter().flatten().any(|queue| queue.waiting() > 0);
    while Instant::now() < until && waits() {
        sleep(WORK_OFF_EVERY).await;
    }
}

/// Hands back what has not started of one topic, except what must be finished and can be before the
/// `cut`.
fn hand_back_waiting<C: Consumer>(table: &Table<C>, queues: &[Arc<Queue>], cut: Instant) {
    // What starts from here on would overtake without being seen.
    queues.iter().for_each(|queue| queue.pause());
    let queued = queues.iter().flat_map(|queue| queue.tickets());
    let overtaken = table.overtaken(&queued.collect());
    for queue in queues {
        let Drained { back, late } = queue.drain(&overtaken, cut);
        late.iter().for_each(|job| table.cut_off(job.ticket));
        table.hand_back(back.iter().map(|job| job.ticket).collect());
    }
}

/// Leaves a group. A handler that blocks its thread keeps the consumer: it is left to the driver's
/// own end then.
async fn close<C: Consumer>(table: Arc<Table<C>>, by: Instant) {
    let alone = async {
        // Tasks that were aborted let go at their next turn.
        while Arc::strong_count(&table) > 1 || Arc::strong_count(table.consumer()) > 1 {
            sleep(LET_GO_EVERY).await;
        }
    };
    let _ = timeout_at(by.min(Instant::now() + LET_GO_MAX), alone).await;
    let consumer = Arc::into_inner(table)
        .map(Table::into_consumer)
        .and_then(Arc::into_inner);
    let Some(consumer) = consumer else {
        tracing::warn!("a handler does not yield: its consumer is not closed");
        return;
    };
    match timeout_at(by, consumer.close(by)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %kratos::error_chain(&error), "could not leave the group");
        }
        Err(_) => tracing::warn!("could not leave the group in time"),
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a task of the consumer panicked");
        }
    }
}
