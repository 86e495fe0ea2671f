//! Looks at what takes locks of the App's, on threads that may wait for them.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::SubscriptionStatus;

/// How long a look may take: it takes locks that lanes use, and must not wait for ever for one that
/// is stuck.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Looks at subscriptions at once.
const SUBSCRIPTIONS_MAX: usize = 3;

/// Looks at the metrics at once: one is for scrapers, and a thread less for what hangs there.
const METRICS_MAX: usize = 1;

/// Looks at once, each on a thread.
pub(super) const LOOKS_MAX: usize = SUBSCRIPTIONS_MAX + METRICS_MAX;

/// Who may look, at subscriptions and at the metrics: what hangs in one leaves room for the other.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    subscriptions: Arc<Semaphore>,
    #[cfg(feature = "telemetry")]
    metrics: Arc<Semaphore>,
}

// === impl Looks ===

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            subscriptions: Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX)),
            #[cfg(feature = "telemetry")]
            metrics: Arc::new(Semaphore::new(METRICS_MAX)),
        }
    }

    /// How every subscription is; an error says why that is not known.
    pub(super) async fn subscriptions(
        &self,
        handle: &crate::Handle,
    ) -> Result<Vec<SubscriptionStatus>, String> {
        let servers = handle.servers();
        let look = move || {
            let live = servers.iter().filter_map(|s| s.description.live_view());
            live.flat_map(|live| live.subscriptions()).collect()
        };
        bounded("subscriptions", &self.subscriptions, look).await
    }

    /// The metrics as text; `None` where there are none. Gauges look at subscriptions too.
    #[cfg(feature = "telemetry")]
    pub(super) async fn metrics(&self) -> Result<Option<String>, String> {
        bounded("metrics", &self.metrics, crate::telemetry::prometheus).await
    }
}

/// A look that holds its place until it has ended, which may be long after its answer was due.
async fn bounded<T: Send + 'static>(
    what: &str,
    places: &Arc<Semaphore>,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let looking = async {
        let place = places.clone().acquire_owned().await;
        spawn_blocking(move || {
            let _held = place;
            look()
        })
        .await
    };
    match timeout(LOOK_MAX, looking).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_panicked)) => Err(format!("a look at the {what} panicked: the log says where")),
        Err(_elapsed) => Err(format!(
            "the {what} do not answer within {} s: the dispatcher may be stuck",
            LOOK_MAX.as_secs()
        )),
    }
}
