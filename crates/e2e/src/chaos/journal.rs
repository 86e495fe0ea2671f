//! What a process notes about each message, so that it outlives a SIGKILL.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::now_ms;

/// A file that only grows; a line is one write, which the kernel keeps when the process is killed.
#[derive(Debug)]
pub(super) struct Journal(File);

/// What the producers noted, all together.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Confirmed by the broker, and when.
    pub(super) confirmed: HashMap<String, u64>,
    /// Reported as failed: perhaps stored.
    pub(super) unsure: HashSet<String>,
    /// Reported as failed: not stored.
    pub(super) refused: HashSet<String>,
    /// When each was first tried.
    pub(super) tried: HashMap<String, u64>,
}

impl Journal {
    pub(super) fn open(folder: &Path, process: &str) -> io::Result<Self> {
        let path = folder.join(format!("{process}.journal"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Notes a fact about a message. A full disk ends the run: without journal no judgement.
    pub(super) fn note(&self, what: &str, id: &str) -> io::Result<()> {
        (&self.0).write_all(format!("{} {what} {id}\n", now_ms()).as_bytes())
    }
}

impl Notes {
    /// Reads all journals of a folder.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut notes = Self::default();
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.extension().is_none_or(|it| it != "journal") {
                continue;
            }
            for line in std::fs::read_to_string(path)?.lines() {
                notes.add(line);
            }
        }
        Ok(notes)
    }

    fn add(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (Some(at), Some(what), Some(id)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let (id, at) = (id.to_owned(), at.parse().unwrap_or_default());
        match what {
            "try" => {
                self.tried.entry(id).or_insert(at);
            }
            "ok" => {
                self.confirmed.insert(id, at);
            }
            "unsure" => {
                self.unsure.insert(id);
            }
            "refused" => {
                self.refused.insert(id);
            }
            _ => {}
        }
    }
}
