//! The end of an instance: the good-bye, then the tasks.

use std::time::Duration;

use futures_util::future::join_all;
use rocketmq_proto::v2 as pb;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Instance;
use crate::{
    error::chain,
    rpc::{Rpc, Subject},
};

/// How long a good-bye may take when the deadline is further away.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

impl Instance {
    /// Says good-bye to every broker, then ends sessions and tasks; all within `by`.
    ///
    /// The good-bye comes after the last settlement: the server gives back what is still held.
    pub(crate) async fn close(&self, by: Instant) {
        if !self.stop.is_cancelled() {
            let goodbye_by = by.min(Instant::now() + GOODBYE_TIMEOUT);
            let ready: Vec<_> = {
                let sessions = self.sessions();
                sessions
                    .values()
                    .filter(|it| it.session.is_ready())
                    .map(|it| it.session.rpc())
                    .collect()
            };
            let goodbyes = join_all(
                ready
                    .into_iter()
                    .map(|rpc| self.say_goodbye(rpc, goodbye_by)),
            );
            if tokio::time::timeout_at(by, goodbyes).await.is_err() {
                debug!(
                    client_id = self.identity.client_id(),
                    "no time left for a good-bye"
                );
            }
            self.stop.cancel();
        }
        self.tasks.close();
        if tokio::time::timeout_at(by, self.tasks.wait())
            .await
            .is_err()
        {
            warn!(
                client_id = self.identity.client_id(),
                tasks = self.tasks.len(),
                "tasks still run at the deadline of the close"
            );
        }
    }

    async fn say_goodbye(&self, rpc: Rpc, by: Instant) {
        let request = pb::NotifyClientTerminationRequest {
            group: self.group().map(|it| self.resource(it)),
        };
        let timeout = by.saturating_duration_since(Instant::now());
        let subject = Subject {
            group: self.group(),
            ..Subject::default()
        };
        let call = rpc.call(
            "client termination",
            subject,
            request,
            timeout,
            |mut stub, rq| async move { stub.notify_client_termination(rq).await },
        );
        if let Err(error) = call.await {
            debug!(error = %chain(&error), "the server did not take the good-bye");
        }
    }
}
