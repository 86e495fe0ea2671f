//! What a server serves, in words for people: logged at start.

/// One line per thing that a server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Lines such as `logger_report_event in group logger-saver, filter *`.
    pub lines: Vec<String>,
}

impl Description {
    /// A description of these lines.
    #[must_use]
    pub fn new(lines: impl IntoIterator<Item = String>) -> Self {
        Self {
            lines: lines.into_iter().collect(),
        }
    }
}
