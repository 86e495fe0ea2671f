//! `GET /saver/v1/reports`.

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Store;

/// Most reports that one answer holds.
pub(crate) const LIMIT_MAX: u32 = 1000;

/// Reports in an answer when the caller does not say.
pub(crate) const LIMIT_DEFAULT: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

/// Why there is no list.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Problem {
    code: u16,
    msg: String,
}

/// The routes of the saver.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/saver/v1/reports", get(list))
        .with_state(store)
}

async fn list(
    State(store): State<Store>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Response> {
    let Query(page) = page.map_err(|error| problem(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let msg = format!("limit is {limit}: it must be 1 to {LIMIT_MAX}");
        return Err(problem(StatusCode::BAD_REQUEST, msg));
    }
    let reports = store.newest(limit).await.map_err(|error| {
        tracing::warn!(error = %kratos::error_chain(&error), "cannot list reports");
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer".to_owned(),
        )
    })?;
    Ok(Json(reports).into_response())
}

fn problem(status: StatusCode, msg: String) -> Response {
    (
        status,
        Json(Problem {
            code: status.as_u16(),
            msg,
        }),
    )
        .into_response()
}
