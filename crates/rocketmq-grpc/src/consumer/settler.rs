//! Settlements: acknowledgements in batches, everything else one by one; tried again while the lease
//! lasts, and each answered once.

mod handle;
mod line;
mod reports;
mod request;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{reports::Reports, request::Extension};
use crate::{
    Error, Lease, Settled, Settlement, backoff::jitter, connection::Connection, instance::Instance,
    lease::Grip, message::INVISIBLE_MAX, spans::Caller,
};

/// Settlements under way beyond which nothing more is received.
const PENDING_MAX: usize = 16_384;
/// Requests under way at once that are not acknowledgements.
const REQUESTS_MAX: usize = 64;
/// A line without work for so long is ended.
const LINE_IDLE_MAX: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Settler {
    instance: Arc<Instance>,
    group: String,
    lines: Mutex<Vec<Line>>,
    pending: AtomicUsize,
    /// A settlement was answered.
    progress: Notify,
    reports: Reports,
    requests: Semaphore,
    /// Set when nothing more is received: acknowledgements need not wait for company.
    hurry: AtomicBool,
    closed: AtomicBool,
    /// Gives up what is under way.
    pub(super) abort: CancellationToken,
    tasks: TaskTracker,
    /// Settlements may be asked for by threads that are not the runtime's.
    runtime: Handle,
}

/// Acknowledgements of one topic for one server. Few, so they are searched.
#[derive(Debug)]
struct Line {
    topic: Arc<str>,
    connection: Arc<Connection>,
    /// As long as the leases that are out, which the caller's room bounds.
    jobs: mpsc::UnboundedSender<Job>,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) grip: Grip,
    how: Settlement,
    reply: Reply,
    tries: u32,
    /// An earlier try may have worked: its answer was lost.
    ambiguous: bool,
    caller: Caller,
}

#[derive(Debug)]
enum Reply {
    Report,
    To(oneshot::Sender<Result<(), Error>>),
    /// Nobody asked.
    Nobody,
}

impl Settler {
    /// Must be called inside of a runtime.
    pub(super) fn new(instance: Arc<Instance>, group: String) -> Arc<Self> {
        Arc::new(Self {
            instance,
            group,
            lines: Mutex::default(),
            pending: AtomicUsize::new(0),
            progress: Notify::new(),
            reports: Reports::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            hurry: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        })
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Queues a settlement; its outcome becomes a report.
    pub(super) fn settle(self: &Arc<Self>, lease: Lease, how: Settlement) {
        self.start(lease, how, Reply::Report);
    }

    /// Queues a settlement of our own, of a message that no caller has seen.
    pub(super) fn discard(self: &Arc<Self>, lease: Lease, how: Settlement) {
        self.start(lease, how, Reply::Nobody);
    }

    /// Gives up what is under way, at once.
    pub(super) fn abort(&self) {
        self.closed.store(true, Ordering::Release);
        self.abort.cancel();
        self.lines().clear();
    }

    /// Queues a settlement; the future is its outcome.
    pub(super) fn settle_now(
        self: &Arc<Self>,
        lease: Lease,
        how: Settlement,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let (reply, outcome) = oneshot::channel();
        self.start(lease, how, Reply::To(reply));
        async move {
            outcome
                .await
                .unwrap_or_else(|_| Err(Error::closed("consumer")))
        }
    }

    /// The work goes on in a task of its own, so that a caller who gives up loses no handle.
    pub(super) async fn extend(
        self: &Arc<Self>,
        lease: &mut Lease,
        by: Duration,
    ) -> Result<Instant, Error> {
        if lease.grip.extending.is_some() {
            // Its outcome matters for the handle only: this is another extension.
            let _ = lease.grip.settle_extension().await;
        }
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::closed("consumer"));
        }
        let (reply, outcome) = oneshot::channel();
        let request = Extension {
            topic: lease.grip.topic.clone(),
            message_id: lease.grip.message_id.clone(),
            connection: lease.grip.connection.clone(),
            hold: lease.grip.hold.clone(),
            by: by.min(INVISIBLE_MAX),
            orderly: lease.grip.member.is_some(),
        };
        let settler = self.clone();
        self.spawn(async move {
            let extension = settler.extend_hold(request);
            if let Some(result) = settler.abort.run_until_cancelled(extension).await {
                let _ = reply.send(result);
            }
        });
        lease.grip.extending = Some(outcome);
        lease
            .grip
            .settle_extension()
            .await
            .unwrap_or_else(|| Err(Error::closed("consumer")))
    }

    /// At least one report; none when everything is closed and told.
    pub(super) async fn reports(&self) -> Vec<Settled> {
        self.reports.take(|| self.is_finished()).await
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn refused(&self) -> u64 {
        self.reports.refused()
    }

    /// Waits while so much is under way that more would only pile up.
    pub(super) async fn has_room(&self) {
        self.until(|| self.pending() < PENDING_MAX).await;
    }

    /// Nothing more is received.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
        // The lines look at the flag when they wake up, within the linger.
    }

    /// Waits until every settlement is answered, then gives up what is left at `by`.
    ///
    /// Returns how many were given up.
    pub(super) async fn close(&self, by: Instant) -> usize {
        self.hurry();
        let flushed = self.until(|| self.pending() == 0);
        let in_time = tokio::time::timeout_at(by, flushed).await.is_ok();
        let given_up = if in_time { 0 } else { self.pending() };
        self.abort();
        self.tasks.close();
        // Cancelled tasks end at their next wake-up.
        self.tasks.wait().await;
        self.reports.wake();
        given_up
    }

    fn start(self: &Arc<Self>, lease: Lease, how: Settlement, reply: Reply) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        if let Some(member) = &lease.grip.member {
            member.settling();
        }
        let job = Job {
            grip: lease.grip,
            how,
            reply,
            tries: 0,
            ambiguous: false,
            caller: self.instance.spans.caller(),
        };
        if self.closed.load(Ordering::Acquire) {
            self.finish(job, Err(Error::closed("consumer")));
        } else if job.grip.extending.is_some() {
            let settler = self.clone();
            self.spawn(async move {
                let mut job = job;
                let known = job.grip.settle_extension();
                if settler.abort.run_until_cancelled(known).await.is_none() {
                    settler.give_up(job);
                } else {
                    settler.dispatch(job);
                }
            });
        } else {
            self.dispatch(job);
        }
    }

    fn dispatch(self: &Arc<Self>, job: Job) {
        if job.how == Settlement::Ack {
            if let Some(job) = self.enqueue(job) {
                self.finish(job, Err(Error::closed("consumer")));
            }
            return;
        }
        let settler = self.clone();
        self.spawn(async move { settler.settle_one(job).await });
    }

    /// Gives the job back when everything is closed.
    fn enqueue(self: &Arc<Self>, job: Job) -> Option<Job> {
        let mut lines = self.lines();
        if self.abort.is_cancelled() {
            return Some(job);
        }
        let found = lines.iter().find(|it| {
            Arc::ptr_eq(&it.connection, &job.grip.connection) && it.topic == job.grip.topic
        });
        if let Some(line) = found {
            return line.jobs.send(job).err().map(|it| it.0);
        }
        let (jobs, queue) = mpsc::unbounded_channel();
        let (topic, connection) = (job.grip.topic.clone(), job.grip.connection.clone());
        let line = self.clone();
        self.spawn(line.run_line(topic.clone(), connection.clone(), queue));
        let unsent = jobs.send(job).err().map(|it| it.0);
        lines.push(Line {
            topic,
            connection,
            jobs,
        });
        unsent
    }

    /// Ends a line that nobody uses, so that it does not keep the connection to a server that left.
    fn retire(
        &self,
        line: &mpsc::UnboundedReceiver<Job>,
        connection: &Arc<Connection>,
        topic: &str,
    ) {
        let mut lines = self.lines();
        // Jobs are added under the same lock.
        if line.is_empty() {
            lines.retain(|it| !(Arc::ptr_eq(&it.connection, connection) && &*it.topic == topic));
        }
    }

    /// The server has answered a settlement, or it is given up. In an orderly group this may be the
    /// answer to others, and it may have to wait for others.
    fn finish(&self, mut job: Job, result: Result<(), Error>) {
        let Some(member) = job.grip.member.take() else {
            return self.answer(job, result);
        };
        for (job, result) in member.answered(job, result) {
            self.answer(job, result);
        }
    }

    /// Answers a settlement, once.
    pub(super) fn answer(&self, job: Job, result: Result<(), Error>) {
        self.reports
            .answer(job, result, self.instance.interceptors());
        self.pending.fetch_sub(1, Ordering::AcqRel);
        self.progress.notify_waiters();
        if self.is_finished() {
            // Nothing more is told: those who wait for reports go.
            self.reports.wake();
        }
    }

    pub(super) fn give_up(&self, job: Job) {
        let error = Error::lease_expired(
            format!(
                "{:?} of message {} was not confirmed before the close",
                job.how, job.grip.message_id
            ),
            None,
        );
        self.finish(job, Err(error));
    }

    /// Answers the job, or says when it is tried again.
    fn after(&self, mut job: Job, result: Result<(), Error>) -> Option<(Instant, Job)> {
        let error = match result {
            Ok(()) => {
                let result = job.trust_ok();
                self.finish(job, result);
                return None;
            }
            Err(error) => error,
        };
        if error.is_receipt_expired() && job.ambiguous && job.wants_delivery() {
            // The earlier try took effect; or else the lease ran out, which is the same in the end.
            self.finish(job, Ok(()));
            return None;
        }
        let delay = jitter(
            RETRY_FIRST
                .saturating_mul(1 << job.tries.min(8))
                .min(RETRY_MAX),
        );
        let at = Instant::now() + delay;
        if !error.is_retryable() {
            self.finish(job, Err(error));
            return None;
        }
        if at >= job.grip.hold.deadline {
            let text = format!(
                "the lease of message {} ran out before the server confirmed {:?}",
                job.grip.message_id, job.how
            );
            self.finish(job, Err(Error::lease_expired(text, Some(error))));
            return None;
        }
        job.tries += 1;
        job.ambiguous |= error.may_be_stored();
        Some((at, job))
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if done() {
                return;
            }
            progress.await;
        }
    }

    fn is_finished(&self) -> bool {
        self.closed.load(Ordering::Acquire) && self.pending() == 0
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// For the span of a request.
    fn traced(&self) -> (&Grip, &Caller) {
        (&self.grip, &self.caller)
    }

    /// What the server's OK is worth: that to a handle which an extension has replaced is worth
    /// nothing, but in an orderly group.
    fn trust_ok(&self) -> Result<(), Error> {
        let grip = &self.grip;
        if !grip.hold.doubtful || grip.member.is_some() || self.wants_delivery() {
            return Ok(());
        }
        let text = format!(
            "the answer to an extension of message {} was lost: it may be delivered again",
            grip.message_id
        );
        Err(Error::lease_expired(text, None))
    }

    /// True if the message shall come again.
    pub(super) fn wants_delivery(&self) -> bool {
        matches!(self.how, Settlement::RetryAfter(_) | Settlement::HandBack)
    }
}
