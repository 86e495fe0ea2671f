//! One message of a group without order.

use std::{fmt::Display, sync::Arc};

use tokio::time::Instant;
use tracing::warn;

use super::intake::Loop;
use crate::{Lease, MessageView};

/// Handles a message and settles it; returns how many places are free then.
pub(super) async fn run<H, F, E>(of: Arc<Loop<H>>, lease: Lease) -> usize
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let handled = handle(&of, lease);
    of.shared.abort.run_until_cancelled(handled).await;
    1
}

async fn handle<H, F, E>(of: &Loop<H>, mut lease: Lease)
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let consumer = &of.consumer;
    let message = lease.take_message();
    let (id, attempt) = (message.id.clone(), message.attempt);
    let mut handler = of.spawn(message);
    let failure = loop {
        let now = Instant::now();
        let extend_at = lease
            .deadline()
            .checked_sub(of.extend_by / 2)
            .unwrap_or(now);
        tokio::select! {
            biased;
            failure = handler.failure() => break failure,
            () = tokio::time::sleep_until(extend_at) => {
                let extended = tokio::select! {
                    biased;
                    failure = handler.failure() => break failure,
                    extended = consumer.extend(&mut lease, of.extend_by) => extended,
                };
                if let Err(error) = extended {
                    return of.settled(&id, &Err(error));
                }
            }
        }
    };
    // The place of the message is free when its settlement is answered: failing settlements slow
    // the intake down.
    let settled = if let Some(error) = failure {
        warn!(message_id = id, attempt, error, "handler failed");
        let delay = consumer.settings().retry_delays.after_attempt(attempt);
        handler.then(consumer.retry_after(lease, delay)).await
    } else {
        handler.then(consumer.ack(lease)).await
    };
    of.settled(&id, &settled);
}
