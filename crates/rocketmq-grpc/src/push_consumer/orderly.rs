//! One batch of an orderly group: its message groups at the same time, each in its order.
//!
//! The batch is settled as one unit by the server, so its leases stay together here: one task holds
//! and extends all of them, and the tasks of the message groups tell it what to do with which.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::warn;

use super::intake::Loop;
use crate::{Consumer, Error, Lease, MessageView, Settlement, error::chain};

/// Attempts in this process.
const ATTEMPTS_MAX: u32 = 3;
/// All delays between them together.
const DELAYS_MAX: Duration = Duration::from_secs(10);

/// What shall become of a message, by its place among the leases.
type Verdict = (usize, Settlement);

/// Handles a batch and settles it; returns how many places are free then.
pub(super) async fn run<H, F, E>(of: Arc<Loop<H>>, leases: Vec<Lease>) -> usize
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let places = leases.len();
    let mut chains: HashMap<Option<String>, VecDeque<(usize, MessageView)>> = HashMap::new();
    let mut held = Vec::new();
    for (n, mut lease) in leases.into_iter().enumerate() {
        let message = lease.take_message();
        let id = message.id.clone();
        let chain = chains.entry(message.group.clone()).or_default();
        chain.push_back((n, message));
        held.push((id, Some(lease)));
    }
    let (verdicts, mut told) = mpsc::channel(places);
    let end = Arc::new(AtomicUsize::new(places));
    let mut groups = JoinSet::new();
    for chain in chains.into_values() {
        groups.spawn(work_off(of.clone(), chain, end.clone(), verdicts.clone()));
    }
    drop(verdicts);

    let mut settling = FuturesUnordered::new();
    loop {
        let extend_at = extend_at(&held, of.extend_by);
        tokio::select! {
            biased;
            verdict = told.recv() => match verdict {
                Some((n, how)) => settling.extend(settle(&of.consumer, &mut held, n, how)),
                None => break,
            },
            Some((id, settled)) = settling.next() => of.settled(&id, &settled),
            () = tokio::time::sleep_until(extend_at) => {
                let extended = extend(&of.consumer, &mut held, of.extend_by).await;
                if let Err(error) = extended {
                    let error = chain(&error);
                    warn!(topic = of.topic, %error, "leases are lost, their handlers are dropped");
                    break;
                }
            }
            () = of.shared.abort.cancelled() => break,
        }
    }
    // None runs any more, but after a break: what is cut off comes again.
    groups.shutdown().await;
    while let Ok((n, how)) = told.try_recv() {
        settling.extend(settle(&of.consumer, &mut held, n, how));
    }
    for n in 0..held.len() {
        settling.extend(settle(&of.consumer, &mut held, n, Settlement::HandBack));
    }
    while let Some((id, settled)) = settling.next().await {
        of.settled(&id, &settled);
    }
    places
}

/// The messages of one message group, one after the other.
async fn work_off<H, F, E>(
    of: Arc<Loop<H>>,
    mut chain: VecDeque<(usize, MessageView)>,
    end: Arc<AtomicUsize>,
    verdicts: mpsc::Sender<Verdict>,
) where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    while let Some((n, message)) = chain.pop_front() {
        if n >= end.load(Ordering::Relaxed) {
            return;
        }
        let Some(how) = attempt(&of, message).await else {
            // What is behind it comes again with it: no use to begin that.
            end.fetch_min(n, Ordering::Relaxed);
            return;
        };
        // There is room for all.
        if verdicts.send((n, how)).await.is_err() {
            return;
        }
    }
}

/// What shall become of a message; none if it is to be handed back.
async fn attempt<H, F, E>(of: &Loop<H>, message: MessageView) -> Option<Settlement>
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut message = message;
    let mut delays = DELAYS_MAX;
    for attempt in 1..=ATTEMPTS_MAX {
        let failure = {
            let _slot = of.slots.acquire().await.ok()?;
            of.spawn(message.clone()).failure().await
        };
        let Some(error) = failure else {
            return Some(Settlement::Ack);
        };
        warn!(
            message_id = message.id,
            attempt = message.attempt,
            error,
            "handler failed"
        );
        let settings = of.consumer.settings();
        if attempt == ATTEMPTS_MAX || message.attempt >= settings.max_attempts {
            break;
        }
        let delay = settings
            .retry_delays
            .after_attempt(message.attempt)
            .min(delays);
        delays -= delay;
        let waited = tokio::time::sleep(delay);
        of.shared.ending.run_until_cancelled(waited).await?;
        message.attempt += 1;
    }
    Some(Settlement::DeadLetter)
}

/// The settlement of a lease that is still held; its outcome comes with the message's id.
fn settle(
    consumer: &Arc<Consumer>,
    held: &mut [(String, Option<Lease>)],
    n: usize,
    how: Settlement,
) -> Option<impl Future<Output = (String, Result<(), Error>)> + use<>> {
    let (id, lease) = held.get_mut(n)?;
    let (id, lease) = (id.clone(), lease.take()?);
    // It is queued now, in the order of the verdicts; waiting is for the outcome.
    let settled = consumer.settle_now(lease, how);
    Some(async move { (id, settled.await) })
}

/// When the first lease has run for half of its time.
fn extend_at(held: &[(String, Option<Lease>)], by: Duration) -> Instant {
    let leases = held.iter().filter_map(|(_, lease)| lease.as_ref());
    let first = leases.map(Lease::deadline).min();
    let now = Instant::now();
    match first {
        Some(deadline) => deadline.checked_sub(by / 2).unwrap_or(now),
        // Nothing is held, settlements are waited for.
        None => now + by,
    }
}

/// All that is not settled. One that is lost takes the others with it.
async fn extend(
    consumer: &Consumer,
    held: &mut [(String, Option<Lease>)],
    by: Duration,
) -> Result<(), Error> {
    let leases = held.iter_mut().filter_map(|(_, lease)| lease.as_mut());
    let extended = join_all(leases.map(|lease| consumer.extend(lease, by))).await;
    extended.into_iter().try_for_each(|it| it.map(drop))
}
