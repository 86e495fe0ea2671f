//! What may be done from outside, where the configuration allows it.

use std::{future::Future, time::Duration};

use ::http::{StatusCode, header};
use axum::{
    Json,
    body::Bytes,
    extract::{
        FromRequest, Path, Request, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{
    answer::Problem,
    routes::{Admin, BODY_MAX},
};
use crate::{Action, Refusal};

/// How long the body of a request may take to come.
const BODY_READ_MAX: Duration = Duration::from_secs(5);

/// How long an action may take: a runtime that is blocked does none.
const ACTION_MAX: Duration = Duration::from_secs(10);

/// How long dead letters may be read, or sent back, in one request.
const LETTERS_MAX: Duration = Duration::from_secs(120);

/// Most dead letters of one list.
const LIST_MAX: usize = 100;

/// Most dead letters of one replay, and how many if the request does not say.
const REPLAY_MAX: usize = 10_000;
const REPLAY: usize = 100;

type Answer = Result<Json<Value>, Problem>;
type Id = Result<Path<String>, PathRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Concurrency {
    concurrency: usize,
}

/// As [`log_level`] answers it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    log_level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtMost {
    at_most: Option<usize>,
}

pub(super) async fn pause(State(admin): State<Admin>, id: Id, request: Request) -> Answer {
    admin.allowed()?;
    let _nothing: Nothing = json_of(request).await?;
    admin.act(id_of(id)?, Action::Pause).await
}

pub(super) async fn resume(State(admin): State<Admin>, id: Id, request: Request) -> Answer {
    admin.allowed()?;
    let _nothing: Nothing = json_of(request).await?;
    admin.act(id_of(id)?, Action::Resume).await
}

pub(super) async fn concurrency(State(admin): State<Admin>, id: Id, request: Request) -> Answer {
    admin.allowed()?;
    let Concurrency { concurrency } = json_of(request).await?;
    admin
        .act(id_of(id)?, Action::Concurrency(concurrency))
        .await
}

/// Allowed or not like an action: a broker may count it as a delivery of each letter.
pub(super) async fn dead_letters(State(admin): State<Admin>, id: Id) -> Answer {
    admin.allowed()?;
    let id = id_of(id)?;
    admin
        .letters(id, LIST_MAX, |live, id, max| live.dead_letters(id, max))
        .await
}

pub(super) async fn replay(State(admin): State<Admin>, id: Id, request: Request) -> Answer {
    admin.allowed()?;
    let AtMost { at_most } = json_of(request).await?;
    let most = at_most.unwrap_or(REPLAY);
    if !(1..=REPLAY_MAX).contains(&most) {
        return Err(Problem::bad(format!("at_most is 1 to {REPLAY_MAX}")));
    }
    let id = id_of(id)?;
    tracing::info!(
        subscription = id,
        at_most = most,
        "dead letters are replayed by hand"
    );
    admin
        .letters(id, most, |live, id, max| live.replay(id, max))
        .await
}

pub(super) async fn log_level() -> Answer {
    #[cfg(feature = "telemetry")]
    if let Some(level) = crate::telemetry::log_level() {
        return Ok(Json(json!({ "log_level": level.get() })));
    }
    Err(no_log())
}

pub(super) async fn set_log_level(State(admin): State<Admin>, request: Request) -> Answer {
    admin.allowed()?;
    let LogLevel { log_level } = json_of(request).await?;
    #[cfg(feature = "telemetry")]
    if let Some(level) = crate::telemetry::log_level() {
        let text = log_level.trim();
        let set = level.set(text);
        set.map_err(|error| Problem::bad(crate::error_chain(&error).to_string()))?;
        tracing::info!(log_level = text, "log level changed by hand");
        return Ok(Json(json!({ "log_level": level.get() })));
    }
    let _unused = log_level;
    Err(no_log())
}

fn no_log() -> Problem {
    Problem::not_found("the log is not ours: set it up with kratos::telemetry::init")
}

fn id_of(id: Id) -> Result<String, Problem> {
    id.map(|Path(id)| id)
        .map_err(|error| Problem::bad(format!("the path is no id: {error}")))
}

fn unread(error: &BytesRejection) -> Problem {
    let status = error.status();
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => format!("the body is longer than {BODY_MAX} bytes"),
        _ => format!("the body cannot be read: {error}"),
    };
    Problem::new(status, message)
}

/// A body that is JSON and says so: no form of another web site's can, without asking first.
async fn json_of<T: for<'de> Deserialize<'de>>(request: Request) -> Result<T, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = "send JSON, with content-type: application/json";
        return Err(Problem::new(status, message));
    }
    let body = timeout(BODY_READ_MAX, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_elapsed| {
        let message = format!("the body has not come within {} s", BODY_READ_MAX.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    let body = body.map_err(|error| unread(&error))?;
    // Fields have names here: a list would do for serde.
    let fields: serde_json::Result<Map<String, Value>> = serde_json::from_slice(&body);
    fields
        .and_then(|fields| T::deserialize(Value::Object(fields)))
        .map_err(|error| Problem::bad(format!("the body is not what is expected here: {error}")))
}

// === impl Admin ===

impl Admin {
    fn allowed(&self) -> Result<(), Problem> {
        if self.actions {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "actions are not allowed: set admin.actions = true (KRATOS_ADMIN__ACTIONS=true)",
        ))
    }

    async fn act(&self, id: String, action: Action) -> Answer {
        let servers = self.handle.servers();
        let acting = async move {
            let mut refused = unknown(&id);
            for live in servers.iter().filter_map(|s| s.description.live_view()) {
                match live.act(&id, action) {
                    Ok(()) => return Ok(json!({ "done": true })),
                    Err(refusal) if refusal.is_unknown() => {}
                    Err(refusal) => refused = refusal,
                }
            }
            Err(refused)
        };
        self.on_app(ACTION_MAX, acting).await
    }

    async fn letters(
        &self,
        id: String,
        max: usize,
        ask: impl Fn(&dyn crate::Live, &str, usize) -> crate::Answer<Value> + Send + 'static,
    ) -> Answer {
        let servers = self.handle.servers();
        let asking = async move {
            let mut refused = unknown(&id);
            for server in servers {
                let Some(live) = server.description.live_view() else {
                    continue;
                };
                let answer = ask(&**live, &id, max);
                match answer.await {
                    Ok(letters) => return Ok(letters),
                    Err(refusal) if refusal.is_unknown() => {}
                    Err(refusal) => refused = refusal,
                }
            }
            Err(refused)
        };
        self.on_app(LETTERS_MAX, asking).await
    }

    /// Does it where the servers are; gives it up when it takes too long.
    async fn on_app(
        &self,
        max: Duration,
        work: impl Future<Output = Result<Value, Refusal>> + Send + 'static,
    ) -> Answer {
        let task = tokio_util::task::AbortOnDropHandle::new(self.app.spawn(work));
        match timeout(max, task).await {
            Ok(Ok(done)) => Ok(Json(done?)),
            Ok(Err(_panicked)) => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "it panicked: the log says where",
            )),
            Err(_elapsed) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not done within {} s: see /livez", max.as_secs()),
            )),
        }
    }
}

fn unknown(id: &str) -> Refusal {
    let id: String = id.chars().take(200).collect();
    Refusal::unknown(format!(
        "there is no subscription {id}: /subscriptions lists their ids"
    ))
}
