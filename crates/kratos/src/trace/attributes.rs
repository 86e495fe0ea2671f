//! What is said of a span.

use std::borrow::Cow;

use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Attributes of a span, by names that are known when it happens, not when the code is written.
///
/// Only what is recorded should be gathered: see [`describe`](super::describe).
///
/// ```
/// use kratos::trace::Attributes;
///
/// let mut attributes = Attributes::new();
/// attributes.text("messaging.client.id", "client-7");
/// attributes.number("messaging.batch.message_count", 32);
/// attributes.texts("messaging.rocketmq.message.keys", ["order-7", "order-8"]);
/// assert_eq!(attributes.len(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<KeyValue>);

// === impl Attributes ===

impl Attributes {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a text.
    pub fn text(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.0.push(KeyValue::new(name, value.into()));
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: i64) {
        self.0.push(KeyValue::new(name, value));
    }

    /// Adds a list of texts, unless it is empty.
    pub fn texts<T: Into<Cow<'static, str>>>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
    ) {
        let values = values
            .into_iter()
            .map(|value| StringValue::from(value.into()));
        let values: Vec<StringValue> = values.collect();
        if !values.is_empty() {
            let list = Value::Array(Array::String(values));
            self.0.push(KeyValue::new(Key::from_static_str(name), list));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them to a span.
    pub fn record(self, span: &Span) {
        for KeyValue { key, value, .. } in self.0 {
            span.set_attribute(key, value);
        }
    }

    pub(super) fn into_vec(self) -> Vec<KeyValue> {
        self.0
    }
}
