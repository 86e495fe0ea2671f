//! Which file is read, and its parsing.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use figment::{
    Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map},
};

use super::env;
use crate::{Error, Result};

const OPTION: &str = "--config";

/// A parsed file, under the name by which the user knows it.
pub(super) struct File {
    path: PathBuf,
    content: Dict,
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.path.as_path())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.content.clone()))
    }
}

/// Finds and parses the file; `None` if none is named and the default one is absent.
pub(super) fn find(
    name: &str,
    directory: &Path,
    args: &[OsString],
    vars: &[(OsString, OsString)],
) -> Result<Option<File>> {
    if let Some(path) = option(args)? {
        return open(path.as_ref(), &format!("named by {OPTION}")).map(Some);
    }
    if let Some((variable, path)) = env::file(vars) {
        return open(path.as_ref(), &format!("named by {}", variable.display())).map(Some);
    }
    let path = directory.join(format!("{name}.toml"));
    match fs::read_to_string(&path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, "found by its name", error)),
    }
}

/// The value of `--config`; a `--` ends the options.
fn option(args: &[OsString]) -> Result<Option<OsString>> {
    let mut file = None;
    let mut args = args.iter().take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        let value = if arg == OPTION {
            args.next()
                .filter(|value| !value.as_encoded_bytes().starts_with(b"--"))
                .cloned()
        } else if let Some(value) = after_equals(arg) {
            Some(value)
        } else {
            continue;
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Err(Error::msg(format!(
                "{OPTION} needs a file: write `{OPTION} FILE`"
            )));
        };
        if let Some(first) = file.replace(value) {
            return Err(Error::msg(format!(
                "{OPTION} is given more than once, first with {}: name one file",
                first.display()
            )));
        }
    }
    Ok(file)
}

/// The value in `--config=value`, which need not be UTF-8.
#[cfg(unix)]
fn after_equals(arg: &OsStr) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;

    let value = arg.as_bytes().strip_prefix(OPTION.as_bytes())?;
    Some(OsStr::from_bytes(value.strip_prefix(b"=")?).to_owned())
}

/// The value in `--config=value`.
#[cfg(not(unix))]
fn after_equals(arg: &OsStr) -> Option<OsString> {
    let value = arg.to_str()?.strip_prefix(OPTION)?;
    Some(value.strip_prefix('=')?.into())
}

fn open(path: &Path, origin: &str) -> Result<File> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, origin, error))?;
    parse(path.to_owned(), &text)
}

fn unreadable(path: &Path, origin: &str, error: io::Error) -> Error {
    let path = path.display();
    Error::msg(format!(
        "cannot read the configuration file {path}, {origin}"
    ))
    .with_source(error)
}

fn parse(path: PathBuf, text: &str) -> Result<File> {
    match Toml::from_str(text) {
        Ok(content) => Ok(File { path, content }),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let (line, column) = position(text, offset);
            let path = path.display();
            let reason = error.message().trim().replace('\n', ", ");
            Err(Error::msg(format!(
                "{path}:{line}:{column}: not valid TOML: {reason}"
            )))
        }
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
