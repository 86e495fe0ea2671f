//! For tests of services: which spans there were, and which trace they are.
//!
//! ```
//! use kratos::{assert_trace, testing::Recorder};
//!
//! let recorder = Recorder::of_thread();
//! tracing::info_span!("POST /orders").in_scope(|| {
//!     tracing::info_span!("send orders").in_scope(|| {});
//! });
//! let [_post, send] = &*assert_trace!(recorder, "POST /orders" => "send orders") else {
//!     unreachable!("a span for each name")
//! };
//! assert_eq!(send.attribute("messaging.system"), None);
//! ```

mod recorder;
mod tree;

use std::{collections::BTreeMap, time::SystemTime};

pub use self::{
    recorder::Recorder,
    tree::{follow, tree},
};

/// A span that has ended, as its exporter saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedSpan {
    /// What it is called.
    pub name: String,
    /// `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` or `INTERNAL`.
    pub kind: &'static str,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span id of its parent, in this process or another; `None` of a root.
    pub parent_id: Option<String>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is said of it: names, and values as text. Lists are written as JSON has them.
    pub attributes: BTreeMap<String, String>,
    /// What it is linked to.
    pub links: Vec<RecordedLink>,
    /// The names of its events.
    pub events: Vec<String>,
    /// Its status is an error.
    pub is_error: bool,
}

/// A link of a span to another.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedLink {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
}

/// Where recorded spans are to be found: a [`Recorder`], or a list.
pub trait Spans {
    /// Those that have ended, in the order of their end.
    fn spans(&self) -> Vec<RecordedSpan>;
}

/// Asserts that spans of these names are one below the other, each the parent of the next, and
/// answers them; panics with the tree of all that was recorded.
///
/// The first may have a parent, and each of them other children. Spans are recorded when they end:
/// [`Recorder::wait_for`] waits for those of handlers.
///
/// ```
/// use kratos::{assert_trace, testing::Recorder};
///
/// let recorder = Recorder::of_thread();
/// tracing::info_span!("a").in_scope(|| tracing::info_span!("b").in_scope(|| {}));
/// assert_trace!(recorder, "a" => "b");
/// ```
#[macro_export]
macro_rules! assert_trace {
    ($spans:expr, $($name:expr)=>+ $(,)?) => {{
        let spans = $crate::testing::Spans::spans(&$spans);
        match $crate::testing::follow(&spans, &[$($name.as_ref()),+]) {
            ::std::result::Result::Ok(path) => path,
            ::std::result::Result::Err(missing) => ::std::panic!("{}", missing),
        }
    }};
}

// === impl RecordedSpan ===

impl RecordedSpan {
    /// An attribute's value, as text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

// === impl Spans ===

impl Spans for Vec<RecordedSpan> {
    fn spans(&self) -> Vec<RecordedSpan> {
        self.clone()
    }
}

impl<S: Spans + ?Sized> Spans for &S {
    fn spans(&self) -> Vec<RecordedSpan> {
        (**self).spans()
    }
}
