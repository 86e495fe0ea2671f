//! Settlements that are not acknowledgements, and extensions: one request each.

use std::{iter, sync::Arc, time::Duration};

use rocketmq_proto::v2 as pb;
use tokio::time::Instant;

use super::{Job, RETRY_FIRST, RETRY_MAX, Settler, handle};
use crate::{
    Error, Settlement,
    backoff::jitter,
    connection::Connection,
    convert,
    lease::{Grip, Hold},
    message::INVISIBLE_MAX,
    rpc::{Rpc, Subject},
};

#[derive(Debug)]
pub(super) struct Extension {
    pub(super) topic: Arc<str>,
    pub(super) message_id: String,
    pub(super) connection: Arc<Connection>,
    pub(super) hold: Hold,
    pub(super) by: Duration,
    pub(super) orderly: bool,
}

impl Settler {
    pub(super) async fn settle_one(self: Arc<Self>, job: Job) {
        let mut job = job;
        loop {
            let Some(result) = self.abort.run_until_cancelled(self.try_one(&job)).await else {
                return self.give_up(job);
            };
            let Some((at, again)) = self.after(job, result) else {
                return;
            };
            job = again;
            if self
                .abort
                .run_until_cancelled(tokio::time::sleep_until(at))
                .await
                .is_none()
            {
                return self.give_up(job);
            }
        }
    }

    async fn try_one(&self, job: &Job) -> Result<(), Error> {
        let _slot = self
            .requests
            .acquire()
            .await
            .map_err(|_| Error::closed("consumer"))?;
        let grip = &job.grip;
        let rpc = Rpc {
            identity: self.instance.identity.clone(),
            connection: grip.connection.clone(),
        };
        let spans = &self.instance.spans;
        let span = spans.settle(job.how, &grip.topic, iter::once(job.traced()));
        let result = match job.how {
            Settlement::RetryAfter(delay) => self
                .change(&rpc, "retry", grip, delay.min(INVISIBLE_MAX))
                .await
                .map(drop),
            Settlement::HandBack => self
                .change(&rpc, "hand-back", grip, Duration::ZERO)
                .await
                .map(drop),
            Settlement::DeadLetter => self.dead_letter(&rpc, grip).await,
            Settlement::Ack => Ok(()),
        };
        span.ended(&result);
        if let Err(error) = &result {
            self.instance.react(rpc.connection.endpoints(), error);
        }
        result
    }

    async fn change(
        &self,
        rpc: &Rpc,
        operation: &'static str,
        grip: &Grip,
        invisible: Duration,
    ) -> Result<String, Error> {
        let hold = &grip.hold;
        self.change_hold(
            rpc,
            operation,
            &grip.topic,
            &grip.message_id,
            hold,
            invisible,
        )
        .await
    }

    /// Returns the handle that replaces the one in `hold`.
    async fn change_hold(
        &self,
        rpc: &Rpc,
        operation: &'static str,
        topic: &str,
        message_id: &str,
        hold: &Hold,
        invisible: Duration,
    ) -> Result<String, Error> {
        let request = pb::ChangeInvisibleDurationRequest {
            group: Some(self.instance.resource(&self.group)),
            topic: Some(self.instance.resource(topic)),
            receipt_handle: hold.handle.clone(),
            invisible_duration: Some(convert::proto_duration(invisible)),
            message_id: message_id.to_owned(),
            ..Default::default()
        };
        let subject = Subject {
            topic: Some(topic),
            group: Some(&self.group),
        };
        let timeout = self.instance.request_timeout();
        let answer = rpc
            .call(
                operation,
                subject,
                request,
                timeout,
                |mut stub, rq| async move { stub.change_invisible_duration(rq).await },
            )
            .await?;
        Ok(answer.receipt_handle)
    }

    async fn dead_letter(&self, rpc: &Rpc, grip: &Grip) -> Result<(), Error> {
        let max_attempts = self.instance.settings.borrow().max_attempts;
        let request = pb::ForwardMessageToDeadLetterQueueRequest {
            group: Some(self.instance.resource(&self.group)),
            topic: Some(self.instance.resource(&grip.topic)),
            receipt_handle: grip.hold.handle.clone(),
            message_id: grip.message_id.clone(),
            delivery_attempt: i32::try_from(grip.attempt).unwrap_or(i32::MAX),
            max_delivery_attempts: i32::try_from(max_attempts).unwrap_or(i32::MAX),
            lite_topic: None,
        };
        let subject = Subject {
            topic: Some(&grip.topic),
            group: Some(&self.group),
        };
        let timeout = self.instance.request_timeout();
        rpc.call(
            "dead letter",
            subject,
            request,
            timeout,
            |mut stub, rq| async move { stub.forward_message_to_dead_letter_queue(rq).await },
        )
        .await?;
        Ok(())
    }

    pub(super) async fn extend_hold(&self, it: Extension) -> Result<Hold, Error> {
        let rpc = Rpc {
            identity: self.instance.identity.clone(),
            connection: it.connection,
        };
        let mut delay = RETRY_FIRST;
        // An earlier try may have worked: its answer was lost.
        let mut maybe_done = None;
        loop {
            let asked_at = Instant::now();
            let changed = self
                .change_hold(
                    &rpc,
                    "extension",
                    &it.topic,
                    &it.message_id,
                    &it.hold,
                    it.by,
                )
                .await;
            let error = match changed {
                Ok(handle) => {
                    let handle = if handle.is_empty() {
                        // A server that names no new handle means the old one.
                        it.hold.handle
                    } else {
                        handle::after_extension(&it.hold.handle, handle, it.orderly)
                    };
                    return Ok(Hold {
                        handle,
                        deadline: asked_at + it.by,
                        doubtful: it.hold.doubtful || maybe_done.is_some(),
                    });
                }
                Err(error) => error,
            };
            self.instance.react(rpc.connection.endpoints(), &error);
            if !error.is_retryable() || Instant::now() + delay >= it.hold.deadline {
                return Err(error.after_maybe_stored(maybe_done));
            }
            if error.may_be_stored() {
                maybe_done = Some(error);
            }
            tokio::time::sleep(jitter(delay)).await;
            delay = (delay * 2).min(RETRY_MAX);
        }
    }
}
