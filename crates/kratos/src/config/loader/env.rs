//! Environment variables as values of the configuration.

use std::ffi::{OsStr, OsString};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use crate::{Error, Result};

const PREFIX: &str = "KRATOS_";

/// Names the file; no key.
const FILE: &str = "KRATOS_CONFIG";

const SEPARATOR: &str = "__";

/// One variable. Each is a provider of its own, so that an error names the variable as the user
/// spelled it.
pub(super) struct Variable {
    name: String,
    path: Vec<String>,
    value: String,
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment variable", self.name.clone())
    }

    /// The value stays a string: the type of the field decides how it is read.
    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let mut value = Value::from(self.value.clone());
        for key in self.path.iter().rev() {
            value = Value::from(Map::from([(key.clone(), value)]));
        }
        let dict = value.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// The name that sets the key at `path`.
pub(super) fn name_of(path: &str) -> String {
    let levels = path.to_uppercase().replace('.', SEPARATOR);
    format!("{PREFIX}{levels}")
}

/// The variable that names the file, as it is spelled, and its value; an empty one is as none.
pub(super) fn file(vars: &[(OsString, OsString)]) -> Option<(&OsStr, &OsStr)> {
    vars.iter()
        .find(|(name, value)| name.eq_ignore_ascii_case(FILE) && !value.is_empty())
        .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
}

/// The variables that set keys, sorted by path.
pub(super) fn variables(vars: Vec<(OsString, OsString)>) -> Result<Vec<Variable>> {
    let mut variables = Vec::new();
    for (name, value) in vars {
        if !has_prefix(&name) || name.eq_ignore_ascii_case(FILE) {
            continue;
        }
        variables.push(Variable::new(&name, value)?);
    }
    variables.sort_by(|a, b| a.path.cmp(&b.path));
    // Sorted, a key comes right before the keys below it.
    for pair in variables.windows(2) {
        let [outer, inner] = pair else { continue };
        if inner.path.starts_with(&outer.path) {
            return Err(Error::msg(format!(
                "the environment variables {} and {} both set `{}`: keep one",
                outer.name,
                inner.name,
                outer.path.join(".")
            )));
        }
    }
    Ok(variables)
}

fn has_prefix(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

// === impl Variable ===

impl Variable {
    fn new(name: &OsStr, value: OsString) -> Result<Self> {
        let shown = name.display();
        let path: Option<Vec<String>> = name
            .to_str()
            .and_then(|name| name.get(PREFIX.len()..))
            .map(|keys| keys.to_lowercase())
            .map(|keys| keys.split(SEPARATOR).map(str::to_owned).collect());
        let path = path
            .filter(|path| path.iter().all(|key| !key.is_empty()))
            .ok_or_else(|| {
                Error::msg(format!(
                    "the environment variable {shown} names no key: write {PREFIX}SECTION{SEPARATOR}KEY"
                ))
            })?;
        let value = value.into_string().map_err(|_not_utf8| {
            Error::msg(format!(
                "the value of the environment variable {shown} is not UTF-8"
            ))
        })?;
        Ok(Self {
            name: shown.to_string(),
            path,
            value,
        })
    }
}
