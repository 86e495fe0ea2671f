//! Answers to the server's questions about transactions that nobody ended.
//!
//! The Apache broker asks everything twice, milliseconds apart, and delivers the message twice if it
//! is answered twice. It also asks while a long local transaction is still running, when the user's
//! checker cannot know the outcome yet. So what is open, being checked or answered lately is not
//! asked about again.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use rocketmq_proto::v2 as pb;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    Resolution,
    transaction::{END_WITHIN, Ending},
};
use crate::{
    Error, MessageView,
    error::chain,
    instance::{Instance, OrphanCheck},
    message::decode,
};

/// Checks that run at once.
const CHECKS_MAX: usize = 16;
/// A check that takes longer comes too late for the proxy.
const CHECK_TIMEOUT: Duration = END_WITHIN;
/// How long questions about a transaction are repetitions, after one that was not answered.
const QUIET_AFTER_CHECK: Duration = Duration::from_secs(1);
/// The same after an answer. If it was lost, the server asks again later.
pub(super) const QUIET_AFTER_ANSWER: Duration = Duration::from_secs(10);
/// Transactions that are remembered after their end.
const REMEMBERED_MAX: usize = 16_384;

/// The user's function.
#[derive(Clone)]
pub(super) struct Checker(Arc<dyn Fn(MessageView) -> BoxFuture<'static, Resolution> + Send + Sync>);

/// Takes the questions.
pub(super) struct Desk {
    instance: Arc<Instance>,
    checker: Checker,
    checks: Arc<Checks>,
    attempts_max: u32,
}

/// Transactions that are not to be asked about.
#[derive(Debug, Default)]
pub(super) struct Checks(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    by_id: HashMap<String, State>,
    /// Ends of quiet times, for tidying up.
    ends: VecDeque<(Instant, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its local transaction or its check is running.
    Open,
    QuietUntil(Instant),
}

/// While it lives, nobody else is asked about a transaction; and then for a while, if told so.
#[derive(Debug)]
pub(super) struct Open {
    checks: Arc<Checks>,
    id: String,
    quiet_for: Duration,
}

// === impl Checker ===

impl Checker {
    pub(super) fn new<F, Fut>(checker: F) -> Self
    where
        F: Fn(MessageView) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Resolution> + Send + 'static,
    {
        Self(Arc::new(move |message| checker(message).boxed()))
    }

    /// Whatever happens in it, there is a resolution.
    async fn check(&self, message: MessageView) -> Resolution {
        let (topic, message_id) = (message.topic.clone(), message.id.clone());
        let check = AssertUnwindSafe(async { (self.0)(message).await }).catch_unwind();
        let problem = match tokio::time::timeout(CHECK_TIMEOUT, check).await {
            Ok(Ok(resolution)) => return resolution,
            Ok(Err(_)) => "panicked",
            Err(_) => "takes too long",
        };
        warn!(%topic, message_id, "the transaction checker {problem}: the server asks again");
        Resolution::Unknown
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(
        instance: &Arc<Instance>,
        checker: Checker,
        checks: Arc<Checks>,
        attempts_max: u32,
    ) -> Self {
        Self {
            instance: instance.clone(),
            checker,
            checks,
            attempts_max,
        }
    }

    pub(super) async fn run(self, mut questions: mpsc::Receiver<OrphanCheck>) {
        let desk = Arc::new(self);
        let stop = desk.instance.stop.clone();
        let slots = Arc::new(Semaphore::new(CHECKS_MAX));
        let all = async {
            while let Some(question) = questions.recv().await {
                let Some(open) = desk.checks.try_open(&question.transaction_id) else {
                    continue;
                };
                let Ok(slot) = slots.clone().acquire_owned().await else {
                    return;
                };
                let (desk, stop) = (desk.clone(), stop.clone());
                desk.instance.tasks.clone().spawn(async move {
                    stop.run_until_cancelled(desk.answer(question, open)).await;
                    drop(slot);
                });
            }
        };
        stop.run_until_cancelled(all).await;
    }

    async fn answer(&self, question: OrphanCheck, mut open: Open) {
        let asked_at = Instant::now();
        open.quiet_for(QUIET_AFTER_CHECK);
        let OrphanCheck {
            endpoints,
            message,
            transaction_id,
        } = question;
        let seen = view(message).and_then(|mut message| {
            let interceptors = self.instance.interceptors();
            interceptors.after_receive(&mut message).map(|()| message)
        });
        let message = match seen {
            Ok(message) => message,
            Err(error) => {
                let error = chain(&error);
                warn!(transaction_id, %error, "a message in a transaction is damaged");
                return;
            }
        };
        let (topic, message_id) = (message.topic.clone(), message.id.clone());
        let resolution = self.checker.check(message).await;
        if resolution == Resolution::Unknown {
            return;
        }
        let ending = Ending {
            endpoints: &endpoints,
            topic: &topic,
            message_id: &message_id,
            transaction_id: &transaction_id,
            resolution,
            source: pb::TransactionSource::SourceServerCheck,
            by: asked_at + END_WITHIN,
            attempts_max: self.attempts_max,
        };
        open.quiet_for(QUIET_AFTER_ANSWER);
        match ending.tell(&self.instance).await {
            Ok(()) => debug!(%topic, message_id, ?resolution, "an orphaned transaction is ended"),
            Err(error) => {
                open.quiet_for(QUIET_AFTER_CHECK);
                let error = chain(&error);
                debug!(%topic, message_id, %error, "an orphaned transaction was not ended");
            }
        }
    }
}

fn view(message: pb::Message) -> Result<MessageView, Error> {
    let (Some(topic), Some(mut system)) = (message.topic, message.system_properties) else {
        return Err(Error::corrupted("it has no topic or no system properties"));
    };
    let (digest, encoding) = (system.body_digest.take(), system.body_encoding);
    let body = decode(message.body, digest.as_ref(), encoding)?;
    let topic = topic.name.as_str().into();
    let mut view = MessageView::from_proto(system, message.user_properties, topic, "".into());
    view.body = body;
    Ok(view)
}

// === impl Checks ===

impl Checks {
    /// Of a transaction that has begun.
    pub(super) fn open(self: &Arc<Self>, id: &str) -> Open {
        self.memory().by_id.insert(id.to_owned(), State::Open);
        self.handle(id)
    }

    /// None if it is not to be asked about now.
    fn try_open(self: &Arc<Self>, id: &str) -> Option<Open> {
        let mut memory = self.memory();
        let asked = match memory.by_id.get(id) {
            Some(State::Open) => true,
            Some(State::QuietUntil(until)) => *until > Instant::now(),
            None => false,
        };
        if asked {
            return None;
        }
        memory.by_id.insert(id.to_owned(), State::Open);
        Some(self.handle(id))
    }

    fn handle(self: &Arc<Self>, id: &str) -> Open {
        Open {
            checks: self.clone(),
            id: id.to_owned(),
            quiet_for: Duration::ZERO,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn close(&mut self, id: &str, quiet_for: Duration) {
        if quiet_for.is_zero() {
            self.by_id.remove(id);
            return;
        }
        let now = Instant::now();
        let until = now + quiet_for;
        self.by_id.insert(id.to_owned(), State::QuietUntil(until));
        self.ends.push_back((until, id.to_owned()));
        while let Some((end, id)) = self.ends.front() {
            if *end > now && self.ends.len() <= REMEMBERED_MAX {
                return;
            }
            if self.by_id.get(id) == Some(&State::QuietUntil(*end)) {
                self.by_id.remove(id);
            }
            self.ends.pop_front();
        }
    }
}

// === impl Open ===

impl Open {
    pub(super) fn quiet_for(&mut self, time: Duration) {
        self.quiet_for = time;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.checks.memory().close(&self.id, self.quiet_for);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(checks: &Arc<Checks>, id: &str, quiet_for: Duration) {
        let mut open = checks.try_open(id).unwrap();
        open.quiet_for(quiet_for);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_is_checked_by_one_at_a_time_and_not_again_within_its_quiet_time() {
        let checks = Arc::new(Checks::default());
        let open = checks.open("1");
        assert!(checks.try_open("1").is_none() && checks.try_open("2").is_some());
        drop(open);
        closed(&checks, "1", QUIET_AFTER_ANSWER);
        assert!(checks.try_open("1").is_none());
        tokio::time::advance(QUIET_AFTER_ANSWER).await;
        assert!(checks.try_open("1").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_what_is_over_is_forgotten() {
        let checks = Arc::new(Checks::default());
        for n in 0..REMEMBERED_MAX + 10 {
            closed(&checks, &n.to_string(), QUIET_AFTER_ANSWER);
        }
        assert_eq!(checks.memory().by_id.len(), REMEMBERED_MAX);
        assert!(checks.try_open("0").is_some(), "the oldest goes first");
        tokio::time::advance(QUIET_AFTER_ANSWER).await;
        closed(&checks, "last", QUIET_AFTER_CHECK);
        assert_eq!(checks.memory().by_id.len(), 1);
        assert_eq!(checks.memory().ends.len(), 1);
    }
}
