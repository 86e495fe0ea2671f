//! The data folder: what the state machine says must outlive the process.
//!
//! Facts go to one thread, in the order of the operations. It writes all that has come in meanwhile
//! in one transaction, so that many sends share one sync of the disk. What cannot be written is
//! kept, newest value by key, and tried again; until then sends are refused.

mod disk;
mod record;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rocketmq_proto::v2::Code;
use tokio::sync::watch;

use self::disk::Disk;
use crate::{
    Error,
    clock::Clock,
    core::lock,
    error::Source,
    state::{Fact, Refusal, State},
};

/// The wait before what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Encoded facts that are not written, by key.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The way to the thread that writes. Dropped, it lets the thread write the rest and end.
#[derive(Debug)]
pub(crate) struct Store {
    inbox: Arc<Inbox>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Commits that tests want to fail.
    failures: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    facts: Vec<Fact>,
    /// Counts pushes.
    pushed: u64,
    closing: bool,
}

/// How far the thread is, counted in pushes.
#[derive(Clone, Debug, Default)]
struct Progress {
    durable: u64,
    /// The last attempt did not get further than `durable`; this is how far it wanted to.
    failed: u64,
    /// Why, while nothing can be written.
    trouble: Option<Arc<str>>,
    closed: bool,
}

struct Writer {
    disk: Disk,
    inbox: Arc<Inbox>,
    progress: watch::Sender<Progress>,
    changes: Changes,
}

impl Store {
    /// Opens the folder, made if need be, and brings the state back that it holds.
    pub(crate) fn open(folder: &Path, state: &mut State) -> Result<Self, Error> {
        let (mut disk, start) = Disk::open(folder)?;
        let facts = disk.load()?;
        state
            .restore(Clock::start().now(), start, facts)
            .map_err(|misfit| disk::corrupt(folder, format!("{:?} does not fit", misfit.0)))?;
        disk.compact(state.stored_bytes());
        let (sender, progress) = watch::channel(Progress::default());
        let inbox = Arc::new(Inbox::default());
        let writer = Writer {
            disk,
            inbox: Arc::clone(&inbox),
            progress: sender,
            changes: Changes::new(),
        };
        thread::Builder::new()
            .name("devbroker-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| disk::failed(folder, "no thread to write it", Some(Box::new(e))))?;
        Ok(Self { inbox, progress })
    }

    /// Hands over the facts of one operation. Called in the order of the operations.
    pub(crate) fn push(&self, facts: Vec<Fact>) {
        let mut waiting = lock(&self.inbox.waiting);
        if !waiting.closing {
            waiting.facts.extend(facts);
        }
        waiting.pushed += 1;
        drop(waiting);
        self.inbox.arrived.notify_one();
    }

    /// Whether there is hope that a message sent now can be kept.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let progress = self.progress.borrow();
        match &progress.trouble {
            _ if progress.closed => Err(closed()),
            None => Ok(()),
            Some(trouble) => {
                let message = format!("the data folder cannot be written: {trouble}");
                Err(Refusal::new(Code::InternalServerError, message))
            }
        }
    }

    /// Waits until everything pushed so far is on disk.
    pub(crate) async fn durable(&self) -> Result<(), Refusal> {
        let pushed = lock(&self.inbox.waiting).pushed;
        let mut progress = self.progress.clone();
        let reached = |p: &Progress| p.durable >= pushed || p.failed >= pushed || p.closed;
        let Ok(progress) = progress.wait_for(reached).await else {
            return Err(closed());
        };
        if progress.durable >= pushed {
            return Ok(());
        }
        let Some(trouble) = &progress.trouble else {
            return Err(closed());
        };
        let message = format!("the message is not on disk yet, and may be kept: {trouble}");
        Err(Refusal::new(Code::MasterPersistenceTimeout, message))
    }

    /// Writes the rest and gives the folder free. What is pushed later is lost.
    pub(crate) async fn close(&self) {
        self.end();
        let mut progress = self.progress.clone();
        // The thread is gone, too, if it cannot tell any more.
        let _ = progress.wait_for(|progress| progress.closed).await;
    }

    /// The next `n` attempts to write fail.
    pub(crate) fn fail(&self, n: usize) {
        self.inbox.failures.store(n, Ordering::Relaxed);
    }

    fn end(&self) {
        lock(&self.inbox.waiting).closing = true;
        self.inbox.arrived.notify_one();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inbox {
    /// Waits for facts, for the end, or, with some left over, for the next attempt.
    fn take(&self, left_over: bool) -> (Vec<Fact>, u64, bool) {
        let mut waiting = lock(&self.waiting);
        if left_over && !waiting.closing {
            let waited = self
                .arrived
                .wait_timeout_while(waiting, RETRY_AFTER, |w| !w.closing);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while !left_over && waiting.facts.is_empty() && !waiting.closing {
            waiting = self
                .arrived
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let facts = std::mem::take(&mut waiting.facts);
        (facts, waiting.pushed, waiting.closing)
    }

    fn injected(&self) -> Result<(), Source> {
        let left = |left: usize| left.checked_sub(1);
        let struck = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        match struck {
            Ok(_) => Err("injected fault: the disk is full".into()),
            Err(_) => Ok(()),
        }
    }
}

impl Writer {
    fn run(mut self) {
        loop {
            let (facts, pushed, closing) = self.inbox.take(!self.changes.is_empty());
            self.changes.extend(facts.iter().map(record::encode));
            let written = self.write();
            let lost = closing && written.is_err();
            match written {
                Ok(()) => self.progress.send_modify(|progress| {
                    progress.durable = pushed;
                    progress.trouble = None;
                }),
                Err(error) => self.report(&error, pushed),
            }
            if lost {
                let records = self.changes.len();
                tracing::error!(
                    records,
                    "the data folder is closed without the newest records"
                );
            }
            if closing {
                break;
            }
        }
        let Self { disk, progress, .. } = self;
        // First, so that whoever is told can open the folder.
        drop(disk);
        progress.send_modify(|progress| progress.closed = true);
    }

    fn write(&mut self) -> Result<(), Source> {
        if !self.changes.is_empty() {
            self.inbox.injected()?;
            self.disk.commit(&self.changes)?;
            self.changes.clear();
        }
        Ok(())
    }

    fn report(&self, error: &Source, pushed: u64) {
        let trouble = chain(&**error);
        self.progress.send_modify(|progress| {
            if progress.trouble.is_none() {
                tracing::error!(error = trouble, "the data folder cannot be written");
            }
            progress.failed = pushed;
            progress.trouble = Some(trouble.into());
        });
    }
}

fn closed() -> Refusal {
    let message = "the data folder is closed: the broker was shut down";
    Refusal::new(Code::InternalServerError, message)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
