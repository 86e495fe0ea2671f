//! Everything that the page shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::StatusCode;
use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{answer::Problem, routes::Admin};
use crate::{Health, ServerStatus};

pub(super) async fn status(State(admin): State<Admin>) -> Json<Value> {
    let subscriptions = admin.looks.subscriptions(&admin.handle).await;
    let liveness = admin.watch.look();
    let unseen = subscriptions.as_ref().err().cloned();
    let reason = liveness.reason();
    let (info, handle) = (&admin.info, &admin.handle);
    let documents = handle.description().map(|described| described.documents());
    Json(json!({
        "app": {
            "id": info.id(),
            "name": info.name(),
            "version": info.version(),
            "metadata": info.metadata(),
        },
        "phase": handle.phase().to_string(),
        "phase_since_ms": millis(handle.phase_age()),
        "uptime_ms": millis(handle.uptime()),
        "now": now(),
        "actions": admin.actions,
        "liveness": {
            "alive": reason.is_none(),
            "heartbeat_ms": millis(liveness.heartbeat),
            "reason": reason.or(unseen),
        },
        "servers": handle.servers().iter().map(server).collect::<Vec<_>>(),
        "resources": handle.resources(),
        "documents": documents.unwrap_or_default(),
        "subscriptions": subscriptions.unwrap_or_default(),
    }))
}

pub(super) async fn subscriptions(State(admin): State<Admin>) -> Result<Json<Value>, Problem> {
    match admin.looks.subscriptions(&admin.handle).await {
        Ok(subscriptions) => Ok(Json(json!({ "subscriptions": subscriptions }))),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

fn server(server: &ServerStatus) -> Value {
    let (health, reason) = match &server.health {
        Some(Health::Serving) => ("serving", None),
        Some(Health::Degraded(why)) => ("degraded", Some(why.to_string())),
        Some(Health::NotServing(why)) => ("not_serving", Some(why.to_string())),
        None => ("not_serving", Some(server.state.to_string())),
    };
    let endpoints: Vec<_> = server.endpoints.iter().map(ToString::to_string).collect();
    json!({
        "name": server.name,
        "kind": server.description.kind(),
        "state": server.state.to_string(),
        "health": health,
        "reason": reason,
        "endpoints": endpoints,
        "entries": server.description.entries(),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, in RFC 3339.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date of a day after 1 January 1970, in the Gregorian calendar. Years begin in March here, so
/// that the odd day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_780), (2026, 11, 23));
        assert_eq!(now().len(), "2026-11-23T22:00:00.000Z".len());
    }
}
