//! How far a group is behind, asked now and then: gRPC does not tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kratos_broker::{Group, Topic};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::broadcast::Site;

/// The first question, after the start: who joins for a moment asks nothing.
const FIRST_AFTER: Duration = Duration::from_secs(1);

/// Shortest time between two questions.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// How long one round may take, over all topics of the group.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// What is known of the lag of a group. Nobody is asked any more once it is dropped.
#[derive(Debug)]
pub(crate) struct Lags {
    known: Known,
    _asking: JoinSet<()>,
}

/// By topic; what could not be asked is not there.
type Known = Arc<Mutex<HashMap<Topic, u64>>>;

/// Whoever asks.
struct Asking {
    site: Site,
    every: Duration,
    group: Group,
    topics: Vec<Topic>,
    known: Known,
}

// === impl Lags ===

impl Lags {
    /// Asks `site`; `None` if nobody is there, or is to be asked.
    pub(crate) fn watch(
        site: Site,
        every: Duration,
        group: Group,
        topics: Vec<Topic>,
    ) -> Option<Self> {
        if every.is_zero() {
            return None;
        }
        let every = match &site {
            Site::Nowhere => return None,
            // In this process: it costs little.
            #[cfg(feature = "embedded")]
            Site::Embedded(_) => EVERY_MIN,
            #[cfg(feature = "admin")]
            Site::Cluster(_) => every.max(EVERY_MIN),
        };
        let known = Known::default();
        let asking = Asking {
            site,
            every,
            group,
            topics,
            known: known.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(asking.run());
        Some(Self {
            known,
            _asking: tasks,
        })
    }

    /// The last answer; `None` before the first, and while there is none.
    pub(crate) fn of(&self, topic: &Topic) -> Option<u64> {
        lock(&self.known).get(topic).copied()
    }
}

// === impl Asking ===

impl Asking {
    async fn run(self) {
        let mut failing = false;
        let mut wait = FIRST_AFTER.min(self.every);
        loop {
            sleep(wait).await;
            wait = self.every;
            let failed = self.ask().await;
            match &failed {
                // Once, however long it lasts.
                Some(error) if !failing => {
                    let group = &self.group;
                    tracing::warn!(%group, error, "the lag is not known: will ask again");
                }
                None if failing => tracing::info!(group = %self.group, "the lag is known again"),
                _ => {}
            }
            failing = failed.is_some();
        }
    }

    /// One round; answers what was wrong first.
    async fn ask(&self) -> Option<String> {
        let (by, mut wrong) = (Instant::now() + ROUND_MAX, None);
        for topic in &self.topics {
            let answer = timeout_at(by, self.site.lag(&self.group, topic)).await;
            let late = |_| Err(format!("no answer within {ROUND_MAX:?}"));
            match answer.unwrap_or_else(late) {
                Ok(lag) => {
                    lock(&self.known).insert(topic.clone(), lag);
                }
                Err(error) => {
                    lock(&self.known).remove(topic);
                    wrong.get_or_insert(error);
                }
            }
        }
        wrong
    }
}

// === impl Site ===

impl Site {
    /// Messages of a topic that wait for a group; what was wrong, for the log.
    async fn lag(&self, group: &Group, topic: &Topic) -> Result<u64, String> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(broker) => Ok(broker.lag(topic, group)),
            #[cfg(feature = "admin")]
            Self::Cluster(admin) => match admin.lag_of_member(group, topic).await {
                Ok(lag) => Ok(lag.total()),
                Err(error) => Err(kratos::error_chain(&error).to_string()),
            },
            Self::Nowhere => Err("there is nobody to be asked".to_owned()),
        }
    }
}

fn lock(known: &Known) -> MutexGuard<'_, HashMap<Topic, u64>> {
    // Nothing under this lock panics half way; a poisoned lock is as good as any.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
