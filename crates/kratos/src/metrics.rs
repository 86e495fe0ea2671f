//! Metrics, by the OpenTelemetry API: nothing is measured until somebody has said where to.
//!
//! [`telemetry::init`](crate::telemetry::init) says so. Who has a meter provider of their own makes it
//! OpenTelemetry's global one and calls [`enable`] before the App is made. Their SDK must have its
//! feature `experimental_metrics_bound_instruments`: without it, what is measured of each message is
//! dropped. (This crate's feature `telemetry` switches it on.)
//!
//! Every attribute comes from the configuration or the code: topics, groups, filters, routes, types
//! of errors. No value is a client's choice, so their number is bounded.

mod app;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use opentelemetry::{InstrumentationScope, global};

pub use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter},
};

pub(crate) use self::app::observe;

/// The bounds of histograms of durations, in seconds: those of OpenTelemetry's conventions.
pub const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The conventions that names and units follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Says that OpenTelemetry's global meter provider is installed: from now on there are metrics.
pub fn enable() {
    if !ENABLED.swap(true, Relaxed) {
        app::instruments(&scope());
    }
}

/// Whether metrics are recorded. Cheap.
#[must_use]
pub fn is_enabled() -> bool {
    ENABLED.load(Relaxed)
}

/// What makes instruments, once metrics are recorded.
#[must_use]
pub fn meter() -> Option<Meter> {
    is_enabled().then(scope)
}

/// A histogram of durations in seconds.
#[must_use]
pub fn duration(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_unit("s")
        .with_description(description)
        .with_boundaries(DURATION_BOUNDS.to_vec())
        .build()
}

/// A histogram of a server's or a channel's; metrics are recorded when it is made.
#[cfg(feature = "net")]
pub(crate) fn server_duration(name: &'static str, description: &'static str) -> Histogram<f64> {
    duration(&scope(), name, description)
}

/// A counter of things, such as `{message}`.
#[must_use]
pub fn counter(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
) -> Counter<u64> {
    meter
        .u64_counter(name)
        .with_unit(unit)
        .with_description(description)
        .build()
}

fn scope() -> Meter {
    global::meter_with_scope(
        InstrumentationScope::builder("kratos")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA_URL)
            .build(),
    )
}
