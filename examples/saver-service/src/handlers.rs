//! The subscribers.

use kratos_broker::{HandlerError, Json, MessageId, State};
use report_proto::{AcceptStatusReportData, RealTimeWarehousingData};

use crate::Store;

/// Events: `RealTimeWarehousingData` as JSON.
pub const TOPIC_EVENT: &str = "logger_report_event";

/// User reports: `AcceptStatusReportData` as JSON.
pub const TOPIC_USER: &str = "logger_report_user";

/// The consumer group of both.
pub const GROUP: &str = "logger-saver";

/// The row could not be committed: the message is delivered again.
#[derive(Debug)]
pub struct SaveError(sqlx::Error);

// === impl SaveError ===

impl std::fmt::Display for SaveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot store the report")
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

// Locked, full or gone: a database comes back, so the broker keeps the message until then.
impl HandlerError for SaveError {
    fn as_error(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self)
    }
}

/// Stores an event.
///
/// # Errors
///
/// The row could not be committed; nothing is stored then.
pub async fn save_event(
    State(store): State<Store>,
    id: MessageId,
    Json(event): Json<RealTimeWarehousingData>,
) -> Result<(), SaveError> {
    let deliveries = store
        .save_event(&id, &trace_id(), &event)
        .await
        .map_err(SaveError)?;
    absorbed(&id, deliveries);
    Ok(())
}

/// Stores a user report.
///
/// # Errors
///
/// The row could not be committed; nothing is stored then.
pub async fn save_status(
    State(store): State<Store>,
    id: MessageId,
    Json(status): Json<AcceptStatusReportData>,
) -> Result<(), SaveError> {
    let deliveries = store
        .save_status(&id, &trace_id(), &status)
        .await
        .map_err(SaveError)?;
    absorbed(&id, deliveries);
    Ok(())
}

fn trace_id() -> String {
    kratos::trace::current_trace_id().unwrap_or_default()
}

fn absorbed(id: &MessageId, deliveries: i64) {
    if deliveries > 1 {
        tracing::info!(
            message_id = id.as_str(),
            deliveries,
            "the report was stored before"
        );
    }
}
