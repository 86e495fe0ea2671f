//! Finds the sources, merges them, reads the result.

mod de;
mod env;
mod fault;
mod file;

use std::{env as process, ffi::OsString, path::PathBuf};

use figment::{Figment, value::Value};
use serde::de::DeserializeOwned;

use self::{
    de::Node,
    fault::{Fault, report},
};
use super::loaded;
use crate::{Error, Result};

/// Most errors that one load reports.
const ERRORS_MAX: usize = 20;

/// Reads the configuration of the service `name` from this process's command line, working
/// directory and environment.
///
/// Arguments other than `--config` are left to the application.
///
/// # Errors
///
/// A named file that cannot be read or is not TOML, unknown keys, missing keys, wrong values. The
/// message says all that is wrong and where.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    let loader = Loader::new(name)
        .args(process::args_os().skip(1))
        .vars(process::vars_os());
    let (config, figment, root) = loader.read()?;
    // For the admin server, without what is secret.
    loaded::remember(&figment, &root);
    Ok(config)
}

/// [`load`] with the command line and the environment given by the caller, for tests and for
/// programs with sources of their own.
///
/// ```
/// let config: kratos::Config = kratos::config::Loader::new("saver-service")
///     .vars([("KRATOS_STOP_TIMEOUT", "1m")])
///     .load()?;
/// assert_eq!(config.stop_timeout.as_secs(), 60);
/// # Ok::<_, kratos::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader {
    name: String,
    args: Vec<OsString>,
    vars: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

impl Loader {
    /// A loader for the service `name`, with no arguments and an empty environment.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            args: Vec::new(),
            vars: Vec::new(),
            directory: PathBuf::new(),
        }
    }

    /// Sets the arguments, without the program's name.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the environment; variables without the prefix are ignored.
    #[must_use]
    pub fn vars<N, V>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        self.vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self
    }

    /// Sets where `<name>.toml` is looked for; the working directory by default.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// As [`load`].
    pub fn load<T: DeserializeOwned>(self) -> Result<T> {
        self.read().map(|(config, ..)| config)
    }

    /// The configuration, and what it was read from.
    fn read<T: DeserializeOwned>(self) -> Result<(T, Figment, Value)> {
        let figment = self.merge()?;
        // The empty path is the whole value.
        let root = figment.find_value("").map_err(|error| {
            Error::msg("the sources of the configuration do not fit together").with_source(error)
        })?;
        let config = read(&figment, root.clone()).map_err(|faults| report(&faults))?;
        Ok((config, figment, root))
    }

    fn merge(self) -> Result<Figment> {
        let mut figment = Figment::new();
        if let Some(file) = file::find(&self.name, &self.directory, &self.args, &self.vars)? {
            figment = figment.merge(file);
        }
        for variable in env::variables(self.vars)? {
            figment = figment.merge(variable);
        }
        Ok(figment)
    }
}

/// Deserializes, and after a fault again without the value at fault, until all faults are known.
fn read<T: DeserializeOwned>(figment: &Figment, mut root: Value) -> Result<T, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    loop {
        let mut fault = match T::deserialize(Node::new(figment, &root)) {
            Ok(config) if faults.is_empty() => return Ok(config),
            Ok(_) => return Err(faults),
            Err(fault) => fault,
        };
        // A required key whose wrong value was taken away.
        if faults.iter().any(|earlier| earlier.path == fault.path) {
            return Err(faults);
        }
        fault.locate(figment, &root);
        let removed = fault.remove_from(&mut root);
        faults.push(fault);
        if !removed || faults.len() == ERRORS_MAX {
            return Err(faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::loaded::Loaded, *};

    #[test]
    fn every_value_names_the_variable_that_it_is_from() {
        let loader = Loader::new("absent").vars([
            ("KRATOS_HTTP__ADDR", "127.0.0.1:1"),
            ("kratos_db__password", "hunter2"),
            ("UNRELATED", "x"),
        ]);
        let (_, figment, root) = loader.read::<Value>().expect("it can be read");
        let loaded = serde_json::to_value(Loaded::new(&figment, &root)).expect("it is JSON");
        assert_eq!(
            loaded,
            json!({
                "config": { "http": { "addr": "127.0.0.1:1" }, "db": { "password": "***" } },
                "sources": {
                    "http.addr": "environment variable KRATOS_HTTP__ADDR",
                    "db.password": "environment variable kratos_db__password",
                },
            })
        );
    }
}
