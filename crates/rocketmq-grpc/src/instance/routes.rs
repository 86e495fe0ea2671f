//! The routes of the topics in use: looked up once however many ask, and kept while the servers
//! cannot tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Error, route::Route};

/// How long an unknown topic is not asked for again.
const UNKNOWN_TOPIC_TTL: Duration = Duration::from_secs(1);
/// How long a route is used that has no queues, as its brokers may be back any moment, or that a
/// server's answer has put in doubt.
const DOUBTED_ROUTE_TTL: Duration = Duration::from_secs(1);
/// Refreshes in a row that do not know a topic before it counts as deleted. A server that was just
/// started does not know its topics for a moment.
const UNKNOWN_MAX: u32 = 2;

/// By topic.
#[derive(Debug, Default)]
pub(super) struct Routes {
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    /// Held while the route is fetched, so that a hundred senders ask once.
    pub(super) fetching: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    route: Option<(Arc<Route>, Instant)>,
    /// What the server answered does not fit the route.
    doubted: bool,
    /// The last look-up, if it failed.
    failed: Option<(Error, Instant)>,
    /// Refreshes in a row that did not know the topic.
    unknown: u32,
}

impl Routes {
    pub(super) fn topic(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.topics();
        match topics.get(name) {
            Some(topic) => topic.clone(),
            None => topics.entry(name.to_owned()).or_default().clone(),
        }
    }

    /// Topics that have a route; the others are forgotten.
    pub(super) fn in_use(&self) -> Vec<(String, Arc<Topic>)> {
        let mut topics = self.topics();
        // One that is being looked up is held elsewhere, too.
        topics.retain(|_, it| it.current().is_some() || Arc::strong_count(it) > 1);
        let routed = topics.iter().filter(|(_, it)| it.current().is_some());
        routed
            .map(|(name, topic)| (name.clone(), topic.clone()))
            .collect()
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    /// What need not be looked up for somebody who came at `asked_at`.
    pub(super) fn cached(&self, asked_at: Instant) -> Option<Result<Arc<Route>, Error>> {
        let known = self.known();
        if let Some((route, at)) = &known.route
            && (!(known.doubted || route.queues.is_empty()) || at.elapsed() < DOUBTED_ROUTE_TTL)
        {
            return Some(Ok(route.clone()));
        }
        let (error, at) = known.failed.as_ref()?;
        let unknown = error.is_unknown_topic() && at.elapsed() < UNKNOWN_TOPIC_TTL;
        // Who waited for the look-up shares its failure: in turn, each would wait for its own.
        (unknown || *at > asked_at).then(|| Err(error.clone()))
    }

    pub(super) fn current(&self) -> Option<Arc<Route>> {
        self.known().route.as_ref().map(|(route, _)| route.clone())
    }

    pub(super) fn found(&self, route: Arc<Route>) {
        *self.known() = Known {
            route: Some((route, Instant::now())),
            doubted: false,
            failed: None,
            unknown: 0,
        };
    }

    pub(super) fn doubt(&self) {
        self.known().doubted = true;
    }

    pub(super) fn failed(&self, error: Error) {
        self.known().failed = Some((error, Instant::now()));
    }

    /// A refresh was told that there is no such topic; true if it is believed now.
    pub(super) fn unknown(&self) -> bool {
        let mut known = self.known();
        known.unknown += 1;
        let gone = known.unknown >= UNKNOWN_MAX;
        if gone {
            known.route = None;
        }
        gone
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
