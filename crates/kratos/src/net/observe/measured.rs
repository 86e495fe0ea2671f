//! How long requests take.

use opentelemetry::KeyValue;
use tokio::time::Instant;

use crate::metrics::Histogram;

/// A request that is measured, from its headers to the end of its answer.
pub(super) struct Measured {
    histogram: &'static Histogram<f64>,
    begun: Instant,
    pub(super) attributes: Vec<KeyValue>,
}

// === impl Measured ===

impl Measured {
    pub(super) fn begin(histogram: &'static Histogram<f64>, attributes: Vec<KeyValue>) -> Self {
        Self {
            histogram,
            begun: Instant::now(),
            attributes,
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let took = self.begun.elapsed().as_secs_f64();
        self.histogram.record(took, &self.attributes);
    }
}
