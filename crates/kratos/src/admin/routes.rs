//! Who answers what.

use ::http::{Method, StatusCode, Uri};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};

use super::{
    answer::{Problem, headers},
    guard::guard,
    look::Looks,
    operate, probe, status,
    watch::Watch,
};
use crate::{AppInfo, Handle};

/// Most bytes of a request's body.
pub(super) const BODY_MAX: usize = 64 * 1024;

const PAGE: &str = include_str!("page.html");
const DOCUMENTS: &str = include_str!("documents.html");

/// What the routes know.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) info: AppInfo,
    pub(super) handle: Handle,
    pub(super) watch: Watch,
    pub(super) looks: Looks,
    pub(super) actions: bool,
    /// Whether only this machine reaches the server.
    pub(super) loopback: bool,
    /// The App's runtime: what is done to its servers is done there.
    pub(super) app: tokio::runtime::Handle,
}

impl Admin {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/", get(Html(PAGE)))
            .route("/documents", get(Html(DOCUMENTS)))
            .route("/livez", get(probe::livez))
            .route("/readyz", get(probe::readyz))
            .route("/startupz", get(probe::startupz))
            .route("/metrics", get(metrics))
            .route("/status", get(status::status))
            .route("/subscriptions", get(status::subscriptions))
            .route("/subscriptions/{id}/pause", post(operate::pause))
            .route("/subscriptions/{id}/resume", post(operate::resume))
            .route(
                "/subscriptions/{id}/concurrency",
                post(operate::concurrency),
            )
            .route("/dead-letters/{id}", get(operate::dead_letters))
            .route("/dead-letters/{id}/replay", post(operate::replay))
            .route("/config", get(config))
            .route(
                "/log-level",
                get(operate::log_level).put(operate::set_log_level),
            )
            .route("/asyncapi.json", get(asyncapi))
            .route("/openapi.json", get(openapi))
            .fallback(nothing_here)
            .method_not_allowed_fallback(wrong_method)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .layer(middleware::map_response(headers))
            .with_state(self)
    }
}

async fn asyncapi(State(admin): State<Admin>) -> Result<Json<serde_json::Value>, Problem> {
    document(&admin, "asyncapi")
}

async fn openapi(State(admin): State<Admin>) -> Result<Json<serde_json::Value>, Problem> {
    document(&admin, "openapi")
}

fn document(admin: &Admin, name: &str) -> Result<Json<serde_json::Value>, Problem> {
    let described = admin.handle.description();
    let document = described.and_then(|described| described.document(name));
    document.map(Json).ok_or_else(|| {
        Problem::not_found(format!(
            "no server of this App has written a part of the document {name}"
        ))
    })
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    #[cfg(feature = "telemetry")]
    {
        let metrics = admin.looks.metrics().await;
        let metrics = metrics.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
        if let Some(text) = metrics {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            return Ok(([(::http::header::CONTENT_TYPE, kind)], text).into_response());
        }
    }
    let _unused = admin;
    Err(Problem::not_found(
        "no metrics are recorded: set them up with kratos::telemetry::init",
    ))
}

async fn config() -> Response {
    #[cfg(feature = "config")]
    if let Some(loaded) = crate::config::loaded() {
        return Json(loaded).into_response();
    }
    Problem::not_found("no configuration was loaded by kratos::config::load").into_response()
}

async fn nothing_here(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!(
        "there is nothing at {path}: the page is at /, its data at /status"
    ))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not take {method}: the header `allow` says what it takes"),
    )
}
