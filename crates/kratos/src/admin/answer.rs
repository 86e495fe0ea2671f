//! Answers that are no page: JSON, and errors that say what to do.

use ::http::{HeaderValue, StatusCode, header};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::Refusal;

/// An error, as JSON: `{"error": "what, where, what to do"}`.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = if refusal.is_unknown() || refusal.is_unsupported() {
            StatusCode::NOT_FOUND
        } else if refusal.is_invalid() {
            StatusCode::BAD_REQUEST
        } else if refusal.is_conflict() {
            StatusCode::CONFLICT
        } else {
            StatusCode::BAD_GATEWAY
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

/// What every answer says: it is old at once, is what it says it is, and stands in no other page.
pub(super) async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
