//! What became of settlements: for those who wait for one, and for whoever asks.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use tracing::debug;

use super::{Job, Reply};
use crate::{Error, Settled, error::chain, interceptor::Interceptors};

/// Reports that wait for [`Reports::take`]; beyond, the oldest is forgotten.
const REPORTS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Reports {
    queue: Mutex<VecDeque<Settled>>,
    reported: Notify,
    refused: AtomicU64,
}

impl Reports {
    pub(super) fn answer(&self, job: Job, result: Result<(), Error>, interceptors: &Interceptors) {
        if let Err(error) = &result {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let (message_id, error) = (&job.grip.message_id, chain(error));
            debug!(message_id, how = ?job.how, %error, "not settled");
        }
        if matches!(job.reply, Reply::Nobody) {
            return;
        }
        let settled = Settled {
            lease: job.grip.id,
            message_id: job.grip.message_id,
            how: job.how,
            result,
        };
        interceptors.after_settle(&settled);
        match job.reply {
            Reply::To(reply) => drop(reply.send(settled.result)),
            Reply::Nobody => {}
            Reply::Report => {
                let mut queue = self.queue();
                if queue.len() >= REPORTS_MAX {
                    queue.pop_front();
                }
                queue.push_back(settled);
                drop(queue);
                self.reported.notify_one();
            }
        }
    }

    /// At least one; none when it is finished.
    pub(super) async fn take(&self, finished: impl Fn() -> bool) -> Vec<Settled> {
        loop {
            let reported = self.reported.notified();
            let reports: Vec<_> = self.queue().drain(..).collect();
            if !reports.is_empty() || finished() {
                return reports;
            }
            reported.await;
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Has those who wait look whether it is finished.
    pub(super) fn wake(&self) {
        self.reported.notify_waiters();
        self.reported.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Settled>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
