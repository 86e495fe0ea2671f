//! What probes ask: alive, ready, started.

use std::fmt::Write as _;

use ::http::StatusCode;
use axum::extract::{RawQuery, State};

use super::routes::Admin;
use crate::{Health, Phase};

/// Of a subscription, for who reads `/readyz?verbose`.
const UNASSIGNED: &str = "the broker has assigned nothing to it (other members of its group have all, \
     or the topic is not there)";

type Answer = (StatusCode, String);

/// What was looked at, and what is wrong with it or worth a word.
struct Parts(Vec<(String, Result<Option<String>, String>)>);

pub(super) async fn livez(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Answer {
    let parts = admin.watch.look().parts.into_iter();
    let parts = parts.map(|(part, verdict)| (part, verdict.map(|()| None)));
    Parts(parts.collect()).answer("alive", query.as_deref())
}

pub(super) async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Answer {
    let mut parts = Parts(Vec::new());
    // Before the others are looked at: what is not ready now must not be called so.
    let ready = admin.handle.is_ready();
    let phase = admin.handle.phase();
    let in_phase = match phase {
        Phase::Ready => Ok(None),
        other => Err(other.to_string()),
    };
    parts.add("phase", in_phase);
    for server in admin.handle.servers() {
        let verdict = match server.health {
            Some(Health::Serving) => Ok(None),
            Some(Health::Degraded(why)) => Ok(Some(format!("degraded: {why}"))),
            Some(Health::NotServing(why)) => Err(why.to_string()),
            None => Err(server.state.to_string()),
        };
        parts.add(format!("server {}", server.name), verdict);
    }
    if is_verbose(query.as_deref()) {
        // Told, and not counted: see the admin server's documentation.
        match admin.looks.subscriptions(&admin.handle).await {
            Ok(subscriptions) => {
                for subscription in subscriptions {
                    let word = match subscription.assigned {
                        Some(false) => Some(UNASSIGNED.to_owned()),
                        Some(true) | None => subscription.reason,
                    };
                    parts.add(format!("subscription {}", subscription.id), Ok(word));
                }
            }
            Err(why) => parts.add("subscriptions", Ok(Some(why))),
        }
    }
    if !ready && parts.first_wrong().is_none() {
        // It became ready between the two looks.
        parts.add("app", Err("not ready a moment ago".to_owned()));
    }
    parts.answer("ready", query.as_deref())
}

pub(super) async fn startupz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Answer {
    let started = match admin.handle.phase() {
        Phase::Starting => Err("starting".to_owned()),
        _ => Ok(None),
    };
    Parts(vec![("phase".to_owned(), started)]).answer("started", query.as_deref())
}

fn is_verbose(query: Option<&str>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

// === impl Parts ===

impl Parts {
    fn add(&mut self, part: impl Into<String>, verdict: Result<Option<String>, String>) {
        self.0.push((part.into(), verdict));
    }

    fn first_wrong(&self) -> Option<String> {
        let mut parts = self.0.iter();
        parts.find_map(|(part, verdict)| {
            let why = verdict.as_ref().err()?;
            Some(format!("{part}: {why}"))
        })
    }

    fn answer(&self, what: &str, query: Option<&str>) -> Answer {
        let wrong = self.first_wrong();
        let mut text = String::new();
        if is_verbose(query) {
            for (part, verdict) in &self.0 {
                let _infallible = match verdict {
                    Ok(None) => writeln!(text, "[+] {part}"),
                    Ok(Some(word)) => writeln!(text, "[+] {part}: {word}"),
                    Err(why) => writeln!(text, "[-] {part}: {why}"),
                };
            }
        }
        match wrong {
            None => (StatusCode::OK, format!("{text}{what}\n")),
            Some(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{text}not {what}: {why}\n"),
            ),
        }
    }
}
