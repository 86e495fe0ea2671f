//! What was loaded, for who looks from outside: without what is secret.

use std::sync::{Mutex, PoisonError};

use figment::{Figment, Source, value::Value};
use serde::Serialize;
use serde_json::{Map, json};

/// In place of what is secret.
const MASK: &str = "***";

/// Parts of a key's name that say that its value is secret.
const SECRET: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "headers",
];

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The configuration that was loaded last, and where its values are from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Loaded {
    config: serde_json::Value,
    sources: Map<String, serde_json::Value>,
}

/// What [`load`](super::load) has read, masked; what is not there has its default. `None` before.
#[cfg(feature = "admin")]
pub(crate) fn loaded() -> Option<Loaded> {
    LOADED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Remembers it; no secret is kept.
pub(super) fn remember(figment: &Figment, root: &Value) {
    let loaded = Loaded::new(figment, root);
    *LOADED.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
}

impl Loaded {
    pub(super) fn new(figment: &Figment, root: &Value) -> Self {
        let mut sources = Map::new();
        let config = masked(figment, root, "", false, &mut sources);
        Self { config, sources }
    }
}

fn masked(
    figment: &Figment,
    value: &Value,
    path: &str,
    secret: bool,
    sources: &mut Map<String, serde_json::Value>,
) -> serde_json::Value {
    let leaf = match value {
        Value::Dict(_, dict) => {
            let fields = dict.iter().map(|(key, value)| {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let secret = secret || is_secret(key);
                let value = masked(figment, value, &path, secret, sources);
                (key.clone(), value)
            });
            return serde_json::Value::Object(fields.collect());
        }
        Value::Array(_, values) => {
            note(figment, value, path, sources);
            let mut inner = Map::new();
            let values = values.iter();
            return values
                .map(|value| masked(figment, value, path, secret, &mut inner))
                .collect();
        }
        Value::String(_, text) if !secret => json!(without_secrets(text)),
        _ if secret => json!(MASK),
        other => serde_json::to_value(other).unwrap_or_else(|_| json!(MASK)),
    };
    note(figment, value, path, sources);
    leaf
}

fn note(
    figment: &Figment,
    value: &Value,
    path: &str,
    sources: &mut Map<String, serde_json::Value>,
) {
    let Some(metadata) = figment.get_metadata(value.tag()) else {
        return;
    };
    let source = match &metadata.source {
        Some(Source::File(file)) => file.display().to_string(),
        // A variable, by its name.
        Some(Source::Custom(name)) => format!("{} {name}", metadata.name),
        _ => metadata.name.to_string(),
    };
    sources.insert(path.to_owned(), json!(source));
}

/// Whether a key's name says that its value is nobody's business.
fn is_secret(key: &str) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    SECRET.iter().any(|word| plain.contains(word))
}

/// A text without the user's name and password of URLs, and without values of parameters that are
/// secret: `postgres://u:p@db/x?password=p`, `host=db password=p`.
fn without_secrets(text: &str) -> String {
    // An end of a parameter: what parts it from the next one.
    let parts = |c: char| matches!(c, '&' | ';' | '?' | ' ' | ',');
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(parts) {
        let (body, end) = match piece.char_indices().next_back() {
            Some((at, last)) if parts(last) => piece.split_at(at),
            _ => (piece, ""),
        };
        match body.split_once('=') {
            Some((key, value)) if is_secret(key) && !value.is_empty() => {
                out.push_str(key);
                out.push('=');
                out.push_str(MASK);
            }
            _ => out.push_str(&without_user(body)),
        }
        out.push_str(end);
    }
    out
}

fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{path}"),
        // A password may hold what ends an authority elsewhere.
        None => match path.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://{MASK}@{rest}"),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format, Toml};

    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let toml = r#"
            name = "billing"
            ports = [1, 2]
            urls = ["http://a:b@c/", "plain"]
            [rocketmq]
            endpoints = "10.0.0.1:8081"
            credentials = { access_key = "AK", secret_key = "SK", nested = { deep = 7 } }
            [db]
            url = "postgres://user:hunter2@db:5432/x?sslmode=on&password=hunter2"
            odd = "postgres://user:hun/ter2@db/x"
            dsn = "host=db password=hunter2 user=me"
            password = "hunter2"
            tokens = ["hunter2", "hunter2"]
            [telemetry]
            headers = { x = "Bearer hunter2" }
            "Api-Key" = "hunter2"
        "#;
        let figment = Figment::from(Toml::string(toml));
        let root = figment.find_value("").expect("it fits together");
        let mut sources = Map::new();
        let shown = masked(&figment, &root, "", false, &mut sources);
        let text = shown.to_string();
        for secret in ["hunter2", "ter2", "AK", "SK", "7", "a:b"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(shown["name"], "billing");
        assert_eq!(shown["ports"], json!([1, 2]));
        assert_eq!(shown["rocketmq"]["endpoints"], "10.0.0.1:8081");
        assert_eq!(
            shown["db"]["url"],
            "postgres://***@db:5432/x?sslmode=on&password=***"
        );
        assert_eq!(shown["db"]["dsn"], "host=db password=*** user=me");
        assert_eq!(shown["urls"], json!(["http://***@c/", "plain"]));
        assert!(sources.contains_key("rocketmq.endpoints"), "{sources:?}");
    }
}
