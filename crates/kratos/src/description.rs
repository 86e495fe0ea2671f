//! What a server serves, for people and for programs, told before it does anything.

mod check;
#[cfg(feature = "cli")]
mod command;
mod documents;

use std::{fmt, sync::Arc};

use serde::Serialize;

pub use self::check::{Check, Finding};
#[cfg(feature = "cli")]
pub use self::command::{Command, CommandContext};
use crate::Live;

/// What a server serves: its entries, its parts of documents, what can be checked before it starts,
/// and a view of it while it runs.
///
/// Made without I/O. The start log prints the entries; [`Handle::servers`](crate::Handle::servers)
/// has all of it while the App runs, [`App::describe`](crate::App::describe) before.
///
/// ```
/// use kratos::{Description, Document, Entry};
///
/// let description = Description::new("http")
///     .entry(Entry::new("route", "POST /agent/v1/report"))
///     .document(Document::new("openapi", serde_json::json!({"paths": {}})));
/// assert_eq!(description.entries()[0].to_string(), "route POST /agent/v1/report");
/// ```
#[derive(Clone, Default)]
pub struct Description {
    kind: String,
    entries: Vec<Entry>,
    documents: Vec<Document>,
    checks: Vec<Check>,
    live: Option<Arc<dyn Live>>,
    #[cfg(feature = "cli")]
    commands: Vec<Command>,
}

/// One thing that a server serves, in the start log and on the operations page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    what: String,
    name: String,
}

/// A server's part of a document; the parts of all servers are merged by who writes the document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    name: String,
    part: serde_json::Value,
}

// === impl Description ===

impl Description {
    /// An empty description of a server of this kind: `http`, `grpc`, `messages`, `admin`.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// Adds one thing that the server serves.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds a part of a document.
    #[must_use]
    pub fn document(mut self, document: Document) -> Self {
        self.documents.push(document);
        self
    }

    /// Adds a question that can be asked before the App runs.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds a command to the command line of the service.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.commands.push(command);
        self
    }

    /// Sets the view of the server while it runs.
    #[must_use]
    pub fn live(mut self, live: Arc<dyn Live>) -> Self {
        self.live = Some(live);
        self
    }

    /// The kind of server; empty if it did not say.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What the server serves.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Its parts of documents.
    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// What can be asked before the App runs.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// What it brings to the command line of the service.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The view of the server while it runs, if it has one.
    #[must_use]
    pub fn live_view(&self) -> Option<&Arc<dyn Live>> {
        self.live.as_ref()
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Description")
            .field("kind", &self.kind)
            .field("entries", &self.entries)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

// === impl Entry ===

impl Entry {
    /// An entry: what it is (`route`, `service`, `subscription`) and its name.
    #[must_use]
    pub fn new(what: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            name: name.into(),
        }
    }

    /// What it is: `route`, `service`, `subscription`.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Its name, such as `POST /agent/v1/report`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `route POST /agent/v1/report`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.name)
    }
}

// === impl Document ===

impl Document {
    /// A part of the document of this name: `asyncapi`, `openapi`.
    #[must_use]
    pub fn new(name: impl Into<String>, part: serde_json::Value) -> Self {
        Self {
            name: name.into(),
            part,
        }
    }

    /// The document's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's part of it.
    #[must_use]
    pub fn part(&self) -> &serde_json::Value {
        &self.part
    }
}
