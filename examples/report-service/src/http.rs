//! `POST /agent/v1/report`.

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    routing::post,
};
use report_proto::{PostReportRequest, PostReportResponse};

use crate::{PostError, Reports};

/// The routes of the reports.
pub fn routes(reports: Reports) -> Router {
    Router::new()
        .route("/agent/v1/report", post(post_report))
        .with_state(reports)
}

async fn post_report(
    State(reports): State<Reports>,
    report: Result<Json<PostReportRequest>, JsonRejection>,
) -> (StatusCode, Json<PostReportResponse>) {
    let report = match report {
        Ok(Json(report)) => report,
        Err(rejection) => {
            let status = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return answer(status, rejection.body_text());
        }
    };
    match reports.post(report).await {
        Ok(()) => (
            StatusCode::OK,
            Json(PostReportResponse {
                code: 0,
                msg: "success".to_owned(),
            }),
        ),
        Err(error @ PostError::Invalid(_)) => answer(StatusCode::BAD_REQUEST, error.to_string()),
        Err(error @ PostError::Unconfirmed(_)) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
    }
}

fn answer(status: StatusCode, msg: String) -> (StatusCode, Json<PostReportResponse>) {
    (
        status,
        Json(PostReportResponse {
            code: i32::from(status.as_u16()),
            msg,
        }),
    )
}
