//! The loop of one topic: receives as there is room, and gives every message to its task.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tracing::warn;

use super::{Shared, each, orderly};
use crate::{BatchPlace, Consumer, Error, Lease, MessageView, error::chain, spans::Within};

/// After a receive that the server refused, beside the consumer's own growing delays.
const REFUSED_DELAY: Duration = Duration::from_millis(100);
/// Most messages in a batch of an orderly group.
const BATCH_MAX: usize = 32;
/// Batches of an orderly group that have a place while others are worked on.
const BATCHES: usize = 2;

/// Of one topic.
pub(super) struct Loop<H> {
    pub(super) consumer: Arc<Consumer>,
    pub(super) topic: String,
    pub(super) concurrency: usize,
    /// One per running handler.
    pub(super) slots: Arc<Semaphore>,
    pub(super) extend_by: Duration,
    pub(super) handler: H,
    pub(super) shared: Arc<Shared>,
}

/// A handler in a task of its own, so that a panic ends the handler and not its message. Dropped,
/// it ends at its next await.
pub(super) struct Running<E> {
    task: JoinHandle<Result<(), E>>,
    within: Within,
}

impl<H, F, E> Loop<H>
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    pub(super) async fn run(self) {
        let this = Arc::new(self);
        let mut running = JoinSet::new();
        let mut held = 0;
        loop {
            let (places, step) = if this.consumer.settings().fifo {
                (this.concurrency.max(BATCH_MAX) * BATCHES, BATCH_MAX / 2)
            } else {
                (this.concurrency, 1)
            };
            let room = places.saturating_sub(held);
            tokio::select! {
                biased;
                () = this.shared.abort.cancelled() => break,
                Some(ended) = running.join_next() => held -= ended.unwrap_or(0),
                leases = this.consumer.receive(&this.topic, room.max(1)), if room >= step => match leases {
                    Ok(leases) if leases.is_empty() => break,
                    Ok(leases) => {
                        held += leases.len();
                        this.start(leases, &mut running);
                    }
                    Err(error) if error.is_closed() => break,
                    Err(error) => {
                        warn!(topic = this.topic, error = %chain(&error), "receive refused");
                        tokio::time::sleep(REFUSED_DELAY).await;
                    }
                },
            }
        }
        // Those that are aborted hand back what they hold.
        while running.join_next().await.is_some() {}
    }

    /// One task per message, or per batch of an orderly group.
    fn start(self: &Arc<Self>, leases: Vec<Lease>, running: &mut JoinSet<usize>) {
        let mut batches: Vec<(BatchPlace, Vec<Lease>)> = Vec::new();
        for lease in leases {
            let id = lease.message().id.clone();
            self.shared.open().insert(id);
            let Some(place) = lease.batch() else {
                running.spawn(each::run(self.clone(), lease));
                continue;
            };
            match batches.last_mut() {
                Some((last, batch)) if last.batch == place.batch => batch.push(lease),
                _ => batches.push((place, vec![lease])),
            }
        }
        for (_, batch) in batches {
            running.spawn(orderly::run(self.clone(), batch));
        }
    }

    pub(super) fn spawn(&self, message: MessageView) -> Running<E> {
        let handler = self.handler.clone();
        // It may panic before there is a future, too.
        let span = self.consumer.spans().process(&message);
        let within = span.within();
        let task = tokio::spawn(span.process(async move { handler(message).await }));
        Running { task, within }
    }

    /// What became of a message is known; a failure on the way out is told by the stop.
    pub(super) fn settled(&self, message_id: &str, settled: &Result<(), Error>) {
        if let Err(error) = settled {
            warn!(message_id, error = %chain(error), "not settled");
        }
        if settled.is_ok() || !self.shared.stopping.is_cancelled() {
            self.shared.open().remove(message_id);
        }
    }
}

impl<E: Display> Running<E> {
    /// Does what follows from it.
    pub(super) async fn then<F: Future>(&self, future: F) -> F::Output {
        self.within.run(future).await
    }

    /// Why it failed, if it did.
    pub(super) async fn failure(&mut self) -> Option<String> {
        match (&mut self.task).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(panic) => Some(panic.to_string()),
        }
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
