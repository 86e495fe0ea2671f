//! Text headers of a message.

use std::{borrow::Cow, fmt};

type Text = Cow<'static, str>;

/// Headers of a message: names and values are text, one value per name.
///
/// The look is that of `http::HeaderMap`, the case rule is not. Brokers keep the case of a name
/// (RocketMQ calls headers user properties, and `orderId` is not `orderid`), yet senders in other
/// languages write `Traceparent`. So:
///
/// * a name is kept, and sent, as it was written;
/// * [`get`](Headers::get) finds the name written exactly so, else the first that differs in ASCII
///   case only;
/// * [`insert`](Headers::insert) replaces what `get` finds.
///
/// ```
/// use kratos_broker::Headers;
///
/// let mut headers = Headers::new();
/// headers.insert("orderId", "7");
/// assert_eq!(headers.get("orderid"), Some("7"));
/// assert_eq!(headers.iter().next(), Some(("orderId", "7")));
/// ```
///
/// As an extractor it is a copy of all headers; [`Delivery::headers`](crate::Delivery::headers)
/// lends them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    // A message has few headers: a scan of a vector beats hashing.
    entries: Vec<(Text, Text)>,
}

// === impl Headers ===

impl Headers {
    /// No headers; does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Room for `headers` headers.
    #[must_use]
    pub fn with_capacity(headers: usize) -> Self {
        Self {
            entries: Vec::with_capacity(headers),
        }
    }

    /// Sets a header and returns the value that it replaces.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Text>) -> Option<Text> {
        let (name, value) = (name.into(), value.into());
        match self.position(&name) {
            Some(at) => {
                let (_, old) = std::mem::replace(&mut self.entries[at], (name, value));
                Some(old)
            }
            None => {
                self.entries.push((name, value));
                None
            }
        }
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).map(|at| &*self.entries[at].1)
    }

    /// Whether there is such a header.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) -> Option<Text> {
        self.position(name).map(|at| self.entries.remove(at).1)
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, in the order of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    fn position(&self, name: &str) -> Option<usize> {
        let exact = self.entries.iter().position(|(n, _)| n == name);
        exact.or_else(|| {
            self.entries
                .iter()
                .position(|(n, _)| n.eq_ignore_ascii_case(name))
        })
    }
}

/// Keeps every pair as it is: names that differ in case stay two headers, as the broker sent them.
impl<N: Into<Text>, V: Into<Text>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let entries = pairs
            .into_iter()
            .map(|(n, v)| (n.into(), v.into()))
            .collect();
        Self { entries }
    }
}

impl IntoIterator for Headers {
    type Item = (Text, Text);
    type IntoIter = std::vec::IntoIter<(Text, Text)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_prefers_the_exact_name_and_falls_back_to_another_case() {
        let headers: Headers = [("traceparent", "a"), ("Traceparent", "b")]
            .into_iter()
            .collect();
        assert_eq!(headers.get("Traceparent"), Some("b"));
        assert_eq!(headers.get("TRACEPARENT"), Some("a"));
        assert_eq!(headers.get("tracestate"), None);
    }

    #[test]
    fn insert_replaces_a_name_in_another_case_and_keeps_the_new_spelling() {
        let mut headers = Headers::new();
        headers.insert("orderid", "1");
        assert_eq!(headers.insert("orderId", "2").as_deref(), Some("1"));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("orderId", "2")]);
        assert_eq!(headers.remove("ORDERID").as_deref(), Some("2"));
        assert!(headers.is_empty());
    }
}
