//! The `telemetry` section.

use serde::Deserialize;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use crate::{Error, Result};

/// What is logged and traced: the `telemetry` section of a service's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which events are logged: a level, or `target=level` pairs, between commas; `info`. As in
    /// `info,saver_service=debug`.
    pub log: String,

    /// The form of a line; `text`.
    pub format: Format,

    /// Where spans go, over OTLP and gRPC, as in `http://127.0.0.1:4317`; nowhere if absent. TLS is
    /// the collector's agent's business: `https` is refused.
    pub otlp_endpoint: Option<String>,

    /// Whether metrics go there too, once a minute; true. A collector that takes traces alone
    /// refuses them.
    pub otlp_metrics: bool,

    /// The share of new traces that are recorded, from 0 to 1; 1. A trace that began elsewhere is
    /// recorded if it is recorded there.
    pub sample_ratio: f64,

    /// The service's name in logs and traces; the executable's if absent.
    pub service_name: Option<String>,

    /// The service's version in traces, metrics and lines of JSON.
    pub service_version: Option<String>,
}

/// The form of a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For machines: one object per line.
    Json,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            format: Format::default(),
            otlp_endpoint: None,
            otlp_metrics: true,
            sample_ratio: 1.0,
            service_name: None,
            service_version: None,
        }
    }
}

impl Config {
    /// The filter of the log.
    pub(super) fn filter(&self) -> Result<EnvFilter> {
        // A lone word that is no level would be taken for a target and silence all others.
        let lone = |part: &str| {
            let level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
            !level && !part.contains(['=', '['])
        };
        let parts: Vec<&str> = self.log.split(',').map(str::trim).collect();
        if let Some(part) = parts.iter().find(|part| lone(part)) {
            return Err(Error::msg(format!(
                "telemetry.log: {part:?} is neither a level (off, error, warn, info, debug, trace) \
                 nor target=level"
            )));
        }
        // The SDK reports on itself; what is said here first is overridden by the user's words.
        let directives = format!("opentelemetry=warn,{}", parts.join(","));
        EnvFilter::builder().parse(directives).map_err(|error| {
            let log = &self.log;
            Error::msg(format!("telemetry.log: cannot read {log:?}")).with_source(error)
        })
    }

    pub(super) fn sample_ratio(&self) -> Result<f64> {
        let ratio = self.sample_ratio;
        if (0.0..=1.0).contains(&ratio) {
            Ok(ratio)
        } else {
            Err(Error::msg(format!(
                "telemetry.sample_ratio: {ratio} is not between 0 and 1"
            )))
        }
    }

    /// The endpoint as far as it can be checked without a connection; an empty one is none.
    pub(super) fn otlp_endpoint(&self) -> Result<Option<&str>> {
        let endpoint = match self.otlp_endpoint.as_deref() {
            None | Some("") => return Ok(None),
            Some(endpoint) => endpoint,
        };
        let refuse = |why: &str| {
            Err(Error::msg(format!(
                "telemetry.otlp_endpoint: {endpoint:?} {why}: write it like http://127.0.0.1:4317"
            )))
        };
        if endpoint.starts_with("https://") {
            return refuse("needs TLS, which is not built in");
        }
        let Some(rest) = endpoint.strip_prefix("http://") else {
            return refuse("does not begin with http://");
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within brackets is part of an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return refuse("names no host");
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return refuse("has a wrong port");
        }
        Ok(Some(endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of<T>(config: &Config, check: impl Fn(&Config) -> Result<T>) -> String {
        match check(config) {
            Ok(_) => panic!("accepted {config:?}"),
            Err(error) => crate::error_chain(&error).to_string(),
        }
    }

    #[test]
    fn refuses_a_log_that_is_no_directive() {
        for log in ["inof", "info,saver", "", "a=loud", "info,,debug"] {
            let config = Config {
                log: log.to_owned(),
                ..Config::default()
            };
            let error = error_of(&config, Config::filter);
            assert!(error.starts_with("telemetry.log: "), "{error}");
        }
        for log in ["warn", "INFO", "info,saver_service::store=debug, h2=off"] {
            let config = Config {
                log: log.to_owned(),
                ..Config::default()
            };
            assert!(config.filter().is_ok(), "{log}");
        }
    }

    #[test]
    fn refuses_a_ratio_beyond_one() {
        for sample_ratio in [-0.1, 1.1, f64::NAN] {
            let config = Config {
                sample_ratio,
                ..Config::default()
            };
            let error = error_of(&config, Config::sample_ratio);
            assert!(error.starts_with("telemetry.sample_ratio: "), "{error}");
        }
    }

    #[test]
    fn refuses_an_endpoint_that_cannot_be_one() {
        let with = |endpoint: &str| Config {
            otlp_endpoint: Some(endpoint.to_owned()),
            ..Config::default()
        };
        for endpoint in [
            "127.0.0.1:4317",
            "https://otel:4317",
            "http://",
            "http://:1",
            "http://a:b",
        ] {
            let error = error_of(&with(endpoint), |config| config.otlp_endpoint().map(|_| ()));
            assert!(error.starts_with("telemetry.otlp_endpoint: "), "{error}");
        }
        for endpoint in [
            "http://otel:4317",
            "http://[::1]:4317/",
            "http://[::1]",
            "http://otel",
            "",
        ] {
            assert!(with(endpoint).otlp_endpoint().is_ok(), "{endpoint}");
        }
    }
}
