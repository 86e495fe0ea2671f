//! The requests that are being answered, so that those cut off can be named.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::http::{Method, Uri};

/// Names of cut requests in one error, at most.
const NAMED_MAX: usize = 32;

/// The requests of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    requests: Arc<Mutex<Requests>>,
}

#[derive(Debug, Default)]
struct Requests {
    next: u64,
    running: BTreeMap<u64, (Method, Uri)>,
}

/// One request, until its answer was sent or given up.
#[derive(Debug)]
pub(super) struct Guard {
    id: u64,
    all: InFlight,
}

impl InFlight {
    pub(super) fn begin(&self, method: Method, uri: Uri) -> Guard {
        let mut requests = self.lock();
        let id = requests.next;
        requests.next += 1;
        requests.running.insert(id, (method, uri));
        Guard {
            id,
            all: self.clone(),
        }
    }

    /// `POST /path` of each request, the oldest first. No query: it may hold what is secret.
    pub(super) fn names(&self) -> Vec<String> {
        let requests = self.lock();
        let running = requests.running.values().take(NAMED_MAX);
        let mut names: Vec<_> = running
            .map(|(m, uri)| format!("{m} {}", uri.path()))
            .collect();
        let more = requests.running.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        names
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.all.lock().running.remove(&self.id);
    }
}
