//! What operations say beyond AsyncAPI's own words.

use serde_json::{Value, json};

use crate::{DeadLetter, Order, Policy, Subscription};

/// `x-retry`: how often a message is tried, and how long between.
pub(super) fn retry(subscription: &Subscription) -> Value {
    let ordered = &subscription.ordered_policy;
    if subscription.fifo {
        return policy(ordered);
    }
    let mut retry = policy(&subscription.policy);
    let keyed = subscription.order != Order::Unordered || subscription.order_by.is_some();
    if keyed {
        retry["ordered"] = policy(ordered);
    }
    retry
}

fn policy(policy: &Policy) -> Value {
    let (first, max, factor, jitter) = policy.backoff.shape();
    json!({
        "maxAttempts": policy.max_attempts,
        "inProcess": policy.retries_here(),
        "backoff": {
            "firstSeconds": first.as_secs_f64(),
            "maxSeconds": max.as_secs_f64(),
            "factor": factor,
            "jitter": jitter,
        },
    })
}

/// `x-dead-letter`: where messages go that are given up.
pub(super) fn dead_letter(subscription: &Subscription) -> Value {
    match &subscription.dead_letter {
        DeadLetter::Native => json!({ "by": "broker" }),
        DeadLetter::Topic(topic) => json!({ "by": "service", "topic": topic.as_str() }),
    }
}

/// The headers that every message has or may have.
pub(super) fn headers() -> Value {
    json!({
        "type": "object",
        "properties": {
            "content-type": {
                "type": "string",
                "description": "How the body is encoded.",
            },
            "traceparent": {
                "type": "string",
                "description": "W3C trace context: the span that sent the message.",
                "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
                "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            },
            "tracestate": {
                "type": "string",
                "description": "W3C trace context: what tracing systems add.",
            },
            "baggage": {
                "type": "string",
                "description": "W3C baggage.",
            },
        },
    })
}

/// The headers of a dead letter that the service publishes itself.
pub(super) fn dead_letter_headers() -> Value {
    let mut headers = headers();
    for (name, what) in [
        (DeadLetter::REASON, "`poison` or `exhausted`."),
        (
            DeadLetter::ERROR_TYPE,
            "The type of the last error, or `decode`, `panic`, `timeout`.",
        ),
        (DeadLetter::ERROR, "What the last error says."),
        (
            DeadLetter::ATTEMPTS,
            "The number of the attempt that failed last.",
        ),
        (
            DeadLetter::ORIGIN_TOPIC,
            "The topic that the message was consumed from.",
        ),
        (DeadLetter::MESSAGE_ID, "The id that the message had there."),
        (
            DeadLetter::MESSAGE_GROUP,
            "The message group that the message had there.",
        ),
    ] {
        headers["properties"][name] = json!({ "type": "string", "description": what });
    }
    headers
}
