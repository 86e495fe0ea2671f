//! What is wrong with a value, and where it came from.

use std::fmt::{self, Display, Write};

use figment::{Figment, Source, value::Value};
use serde::de::{self, Expected, Unexpected};

use super::env;
use crate::Error;

/// Longest value that an error repeats, in characters.
const FOUND_MAX: usize = 80;

/// One error of the deserializer.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: Vec<Step>,
    kind: Kind,
    /// The file, the variables, that hold the value.
    origins: Vec<String>,
    /// The value, where the message does not repeat it.
    found: Option<String>,
}

/// One step from a value to a value within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Debug)]
enum Kind {
    UnknownKey {
        accepted: &'static [&'static str],
    },
    MissingKey,
    WrongValue(String),
    /// In the words of the type, which need not repeat the value.
    Refused(String),
}

/// One error of the App for all faults.
pub(super) fn report(faults: &[Fault]) -> Error {
    if let [fault] = faults {
        return Error::msg(fault.to_string());
    }
    let mut message = format!("the configuration has {} errors:", faults.len());
    for fault in faults {
        let _infallible = write!(message, "\n  {fault}");
    }
    Error::msg(message)
}

// === impl Fault ===

impl Fault {
    fn new(kind: Kind) -> Self {
        Self {
            path: Vec::new(),
            kind,
            origins: Vec::new(),
            found: None,
        }
    }

    /// The same fault, seen from one level further out.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }

    /// Finds the value in `root`, and with it the origin.
    pub(super) fn locate(&mut self, figment: &Figment, root: &Value) {
        let mut value = root;
        for step in &self.path {
            let inner = match (value, step) {
                (Value::Dict(_, dict), Step::Key(key)) => dict.get(key),
                (Value::Array(_, items), Step::Index(index)) => items.get(*index),
                _ => None,
            };
            match inner {
                Some(inner) => value = inner,
                // Within a list from the environment, which is one string.
                None => break,
            }
        }
        origins(figment, value, &mut self.origins);
        if let Value::String(_, text) = value {
            self.found = Some(format!("{:?}", shortened(text)));
        }
    }

    /// Takes the value out of `root`, a list as a whole; false if the fault is the root's own.
    pub(super) fn remove_from(&self, root: &mut Value) -> bool {
        let mut keys = self.path.iter().map_while(|step| match step {
            Step::Key(key) => Some(key),
            Step::Index(_) => None,
        });
        let Some(mut key) = keys.next() else {
            return false;
        };
        let mut value = root;
        for next in keys {
            let Value::Dict(_, dict) = value else {
                return false;
            };
            let Some(inner) = dict.get_mut(key) else {
                return false;
            };
            (value, key) = (inner, next);
        }
        match value {
            Value::Dict(_, dict) => dict.remove(key).is_some(),
            _ => false,
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            let _infallible = match step {
                Step::Key(key) if path.is_empty() => path.write_str(key),
                Step::Key(key) => write!(path, ".{key}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        path
    }

    fn origin(&self) -> String {
        match self.origins.as_slice() {
            [] => String::new(),
            origins => format!(" in {}", origins.join(", ")),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, origin) = (self.path(), self.origin());
        match &self.kind {
            Kind::UnknownKey { accepted: [] } => {
                write!(f, "unknown key `{path}`{origin}: no key is accepted here")
            }
            Kind::UnknownKey { accepted } => {
                write!(f, "unknown key `{path}`{origin}, accepted here: ")?;
                f.write_str(&accepted.join(", "))
            }
            Kind::MissingKey => {
                let variable = env::name_of(&path);
                write!(
                    f,
                    "missing key `{path}`: set it in the file, or as {variable}"
                )
            }
            Kind::WrongValue(reason) => write!(f, "wrong value for `{path}`{origin}: {reason}"),
            Kind::Refused(reason) => {
                write!(f, "wrong value for `{path}`{origin}: ")?;
                match &self.found {
                    Some(found) if !reason.contains(found.as_str()) => {
                        write!(f, "found {found}: {reason}")
                    }
                    _ => f.write_str(reason),
                }
            }
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Kind::Refused(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::WrongValue(mismatch(found, expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::WrongValue(mismatch(found, expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let variant = shortened(variant);
        let expected = expected.join(", ");
        Self::new(Kind::WrongValue(format!(
            "found {variant:?}, expected one of {expected}"
        )))
    }

    fn unknown_field(field: &str, accepted: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey { accepted }).within(Step::Key(field.to_owned()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::MissingKey).within(Step::Key(field.to_owned()))
    }
}

fn mismatch(found: Unexpected<'_>, expected: &dyn Expected) -> String {
    let found = match found {
        Unexpected::Str(text) => format!("{:?}", shortened(text)),
        Unexpected::Map => "a section".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        other => other.to_string(),
    };
    let expected = expected.to_string();
    let expected = match expected.as_str() {
        "a sequence" => "a list",
        section if section.starts_with("struct ") => "a section",
        other => other,
    };
    format!("found {found}, expected {expected}")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(FOUND_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The distinct origins of the values within.
fn origins(figment: &Figment, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Dict(_, dict) if !dict.is_empty() => {
            dict.values()
                .for_each(|inner| origins(figment, inner, into));
        }
        _ => {
            let source = figment.get_metadata(value.tag());
            let origin = match source.and_then(|source| source.source.as_ref()) {
                Some(Source::File(path)) => path.display().to_string(),
                Some(Source::Custom(name)) => format!("the environment variable {name}"),
                _ => return,
            };
            if !into.contains(&origin) {
                into.push(origin);
            }
        }
    }
}
