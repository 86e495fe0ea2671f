//! Metrics as Prometheus text.

/// What is measured, as Prometheus text; `None` while nothing is.
#[cfg(feature = "admin")]
pub(crate) fn prometheus() -> Option<String> {
    None
}
