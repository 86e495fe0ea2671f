//! Heartbeats: they keep a client registered, and they are how a connection that is dead without
//! saying so is found (keep-alive pings may not be sent often enough for that).

use std::{sync::Arc, time::Duration};

use rocketmq_proto::v2 as pb;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Session;
use crate::{Error, error::chain, instance::Instance, rpc::Subject};

/// Unanswered heartbeats in a row after which a connection counts as dead.
const LOST_MAX: u32 = 2;
/// From an unanswered heartbeat to the next.
const AFTER_LOST: Duration = Duration::from_secs(1);

pub(super) async fn run(session: Arc<Session>, instance: Arc<Instance>) {
    let interval = instance.shared.config.heartbeat_interval;
    let mut lost = 0;
    let mut next = Instant::now() + interval.min(Duration::from_secs(1));
    loop {
        let turn = async {
            tokio::time::sleep_until(next).await;
            // Without a stream there is nothing to keep alive, and opening one is the better probe.
            if session.is_ready() {
                Some(beat(&session, &instance).await)
            } else {
                None
            }
        };
        let Some(outcome) = session.ended.run_until_cancelled(turn).await else {
            return;
        };
        next = Instant::now() + interval;
        match outcome {
            None => lost = 0,
            Some(Ok(())) => {
                lost = 0;
                session.rpc.connection.set_isolated(false);
            }
            Some(Err(error)) if error.is_timeout() => {
                lost += 1;
                next = Instant::now() + interval.min(AFTER_LOST);
            }
            Some(Err(error)) => {
                lost = 0;
                debug!(endpoint = session.endpoint(), error = %chain(&error), "heartbeat refused");
                instance.react(session.rpc.connection.endpoints(), &error);
            }
        }
        if lost >= LOST_MAX && session.rpc.connection.renew(false) {
            warn!(
                endpoint = session.endpoint(),
                lost, "no heartbeat is answered, connecting anew"
            );
            lost = 0;
        }
    }
}

async fn beat(session: &Session, instance: &Instance) -> Result<(), Error> {
    let request = pb::HeartbeatRequest {
        group: instance.group().map(|it| instance.resource(it)),
        client_type: instance.client_type().into(),
    };
    let subject = Subject {
        group: instance.group(),
        ..Subject::default()
    };
    let timeout = instance.request_timeout();
    session
        .rpc
        .call(
            "heartbeat",
            subject,
            request,
            timeout,
            |mut stub, rq| async move { stub.heartbeat(rq).await },
        )
        .await?;
    Ok(())
}
