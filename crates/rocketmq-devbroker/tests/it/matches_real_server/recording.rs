//! Answers by part and step: a file that reads and diffs line by line.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

use super::scene::Steps;

/// The answers of every part, in the order of its calls where they were just made.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    parts: BTreeMap<String, Steps>,
}

impl FromIterator<(String, Steps)> for Recording {
    fn from_iter<I: IntoIterator<Item = (String, Steps)>>(parts: I) -> Self {
        Self {
            parts: parts.into_iter().collect(),
        }
    }
}

impl Recording {
    pub(crate) fn parse(text: &str) -> Self {
        type Parts = BTreeMap<String, BTreeMap<String, Value>>;
        let parts: Parts = serde_json::from_str(text).expect("the recording is JSON");
        parts
            .into_iter()
            .map(|(part, steps)| (part, steps.into_iter().collect()))
            .collect()
    }

    /// The file: a line for each step, in the order of the script.
    #[cfg(feature = "real-server")]
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (i, (part, steps)) in self.parts.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n{}: {{", Value::from(part.as_str()));
            for (i, (step, answer)) in steps.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                let _ = write!(text, "{comma}\n  {}: {answer}", Value::from(step.as_str()));
            }
            text.push_str("\n}");
        }
        text.push_str("\n}\n");
        text
    }

    pub(crate) fn answer(&self, part: &str, step: &str) -> Option<&Value> {
        let mut steps = self.parts.get(part)?.iter();
        steps
            .find(|(name, _)| name == step)
            .map(|(_, answer)| answer)
    }

    /// Replaces what was recorded.
    pub(crate) fn replace(&mut self, part: &str, step: &str, answer: Value) {
        let steps = self.parts.entry(part.to_owned()).or_default();
        match steps.iter_mut().find(|(name, _)| name == step) {
            Some((_, known)) => *known = answer,
            None => steps.push((step.to_owned(), answer)),
        }
    }

    /// All steps that `other` answers otherwise, or that only one of the two knows.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        for (part, steps) in &other.parts {
            for (step, answer) in steps {
                // As it comes out of a file: numbers may change their type on the way.
                let answer: Value = serde_json::from_str(&answer.to_string()).unwrap();
                let recorded = self.answer(part, step);
                if recorded != Some(&answer) {
                    let recorded = recorded.map_or("(not recorded)".into(), Value::to_string);
                    let _ = write!(text, "{part}: {step}\n  - {recorded}\n  + {answer}\n");
                }
            }
        }
        for (part, steps) in &self.parts {
            for (step, _) in steps {
                if other.answer(part, step).is_none() {
                    let _ = writeln!(text, "{part}: {step}\n  + (no such step any more)");
                }
            }
        }
        text
    }
}
