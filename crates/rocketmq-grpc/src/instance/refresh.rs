//! Routes change: they are looked up again, and sessions follow.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Instance, routes::Topic};
use crate::{Endpoints, error::chain};

/// How long the session with a broker that left all routes is kept: leases from it are settled.
const SESSION_LINGER: Duration = Duration::from_secs(300);

impl Instance {
    pub(super) async fn refresh_routes(self: Arc<Self>) {
        let interval = self.shared.config.route_refresh_interval;
        while self
            .stop
            .run_until_cancelled(tokio::time::sleep(interval))
            .await
            .is_some()
        {
            let refreshed = async {
                for (name, topic) in self.routes.in_use() {
                    self.refresh_route(&name, &topic).await;
                }
            };
            if self.stop.run_until_cancelled(refreshed).await.is_none() {
                return;
            }
            self.drop_absent_sessions();
            self.shared.drop_unused_connections();
        }
    }

    /// Keeps the old route if there is no new one.
    async fn refresh_route(self: &Arc<Self>, name: &str, topic: &Topic) {
        match self.query_route(name).await {
            Ok(route) => {
                if let Err(error) = self.sessions_of(&route) {
                    let error = chain(&error);
                    warn!(topic = name, %error, "the route names endpoints that cannot be used");
                    return;
                }
                topic.found(Arc::new(route));
            }
            Err(error) if error.is_unknown_topic() => {
                if topic.unknown() {
                    warn!(topic = name, "the topic is gone");
                }
            }
            Err(error) => {
                debug!(topic = name, error = %chain(&error), "the route was not refreshed");
            }
        }
    }

    fn drop_absent_sessions(&self) {
        let routed = self.routes.in_use();
        let routes = routed.iter().filter_map(|(_, topic)| topic.current());
        let present: HashSet<Endpoints> = routes
            .flat_map(|it| it.endpoints().into_iter().cloned().collect::<Vec<_>>())
            .collect();
        let now = Instant::now();
        self.sessions().retain(|endpoints, kept| {
            if present.contains(endpoints) {
                kept.absent_since = None;
                return true;
            }
            let since = *kept.absent_since.get_or_insert(now);
            let keep = now.duration_since(since) < SESSION_LINGER;
            if !keep {
                kept.session.end();
            }
            keep
        });
    }
}
