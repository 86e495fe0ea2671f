//! Metrics as Prometheus reads them.

use std::sync::{Mutex, PoisonError};

use opentelemetry_prometheus::PrometheusExporter;
use prometheus::{Registry, TextEncoder};

use crate::{Error, Result};

/// That of the telemetry which is installed.
static INSTALLED: Mutex<Option<Registry>> = Mutex::new(None);

/// What the metrics of a process are read from.
pub(super) fn reader() -> Result<(PrometheusExporter, Registry)> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter();
    let exporter = exporter.with_registry(registry.clone());
    let exporter = exporter.scope_info_enabled(false).build();
    let exporter = exporter.map_err(|error| {
        Error::msg("cannot make the reader of Prometheus metrics").with_source(error)
    })?;
    Ok((exporter, registry))
}

pub(super) fn install(registry: &Registry) {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    *installed = Some(registry.clone());
}

/// All metrics of this process in Prometheus's text format; `None` before telemetry is set up.
#[must_use]
pub fn prometheus() -> Option<String> {
    let installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let registry = installed.clone()?;
    drop(installed);
    Some(text(&registry))
}

pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    let encoded = TextEncoder::new().encode_utf8(&registry.gather(), &mut text);
    if let Err(error) = encoded {
        tracing::warn!(%error, "cannot write the metrics");
    }
    text
}
