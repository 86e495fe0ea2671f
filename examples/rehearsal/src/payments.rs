//! Orders and refunds: in over HTTP, through RocketMQ, to the gateway.

use std::{fmt, time::Duration};

use axum::{
    Json as Answer, Router,
    extract::{Path, State as Held},
    http::StatusCode,
    routing::post,
};
use kratos_broker::{Backoff, HandlerError, Json, KillSwitch, Policy, State, Subscription};
use kratos_rocketmq::{Publisher, TopicPublisher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::{Gateway, GatewayError};

const ORDERS: &str = "orders";
const REFUNDS: &str = "refunds";

/// Few, so that a handful of messages keeps all of them busy.
const HANDLERS: usize = 4;

/// After so many attempts an order is a dead letter.
const ATTEMPTS: u32 = 2;

/// Between two attempts.
const WAIT: Duration = Duration::from_secs(1);

/// So many refunds fail in a row before none is tried.
const FAILURES: u32 = 3;

/// An order, or a refund.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct Payment {
    /// Which.
    number: u64,
}

/// What was published, to look for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    message_id: String,
    trace_id: Option<String>,
}

/// The money stays where it is; the message comes again.
#[derive(Debug)]
pub(crate) struct PaymentError {
    what: &'static str,
    cause: GatewayError,
}

/// Given up soon: what fails becomes a dead letter.
pub(crate) fn orders() -> Subscription {
    let policy = Policy::new().max_attempts(ATTEMPTS);
    Subscription::new(ORDERS, "billing")
        .concurrency(HANDLERS)
        .policy(policy.backoff(Backoff::fixed(WAIT)))
}

/// While all fail none is tried but one now and then, and that costs no attempt.
pub(crate) fn refunds() -> Subscription {
    Subscription::new(REFUNDS, "refunding")
        .concurrency(HANDLERS)
        .policy(Policy::new().backoff(Backoff::fixed(WAIT)))
        .kill_switch(KillSwitch::new().failures_in_a_row(FAILURES))
}

pub(crate) async fn bill(
    State(gateway): State<Gateway>,
    Json(_order): Json<Payment>,
) -> Result<(), PaymentError> {
    let what = "cannot bill the order";
    let paid = gateway.pay().await;
    paid.map_err(|cause| PaymentError { what, cause })
}

pub(crate) async fn pay_back(
    State(gateway): State<Gateway>,
    Json(_refund): Json<Payment>,
) -> Result<(), PaymentError> {
    let what = "cannot pay the refund back";
    let paid = gateway.pay().await;
    paid.map_err(|cause| PaymentError { what, cause })
}

/// `POST /orders/{number}` and `POST /refunds/{number}`.
pub(crate) fn routes(publisher: &Publisher) -> Router {
    let of = |topic| {
        let payments = TopicPublisher::<Payment>::json(publisher.clone(), topic).schema();
        post(publish).with_state(payments)
    };
    Router::new()
        .route("/orders/{number}", of(ORDERS))
        .route("/refunds/{number}", of(REFUNDS))
}

async fn publish(
    Held(payments): Held<TopicPublisher<Payment>>,
    Path(number): Path<u64>,
) -> Result<Answer<Published>, (StatusCode, String)> {
    let published = payments.publish(&Payment { number }).await;
    let receipt = published.map_err(|error| {
        let why = kratos::error_chain(&error).to_string();
        (StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    Ok(Answer(Published {
        message_id: receipt.id.to_string(),
        trace_id: kratos::trace::current_trace_id(),
    }))
}

// === impl PaymentError ===

impl fmt::Display for PaymentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for PaymentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl HandlerError for PaymentError {
    fn as_error(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self)
    }
}
