//! One redb file in the folder: a table of records, and one of what the folder is.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::{
    Error,
    error::Source,
    state::{FactKey, FactValue},
    store::{Changes, record},
};

const FILE: &str = "broker.redb";
/// The file while it is made.
const NEW_FILE: &str = "broker.redb.new";
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// The version of the records, raised when older brokers cannot read them.
const FORMAT: u64 = 1;
const FORMAT_KEY: &str = "format";
/// How often the folder was opened.
const STARTS_KEY: &str = "starts";

/// A file below this size is not worth the time to compact it.
const COMPACT_ABOVE_BYTES: u64 = 64 << 20;
/// A file this many times as large as what is stored is compacted.
const COMPACT_RATIO: u64 = 4;

/// Pages that redb keeps in memory: everything is read once, and only written then.
const CACHE_BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    /// Absent after a failure: redb wants to be opened again then.
    database: Option<Database>,
}

impl Disk {
    /// Opens the folder for this process alone and returns how often that was done, this time
    /// included.
    pub(super) fn open(folder: &Path) -> Result<(Self, u32), Error> {
        let unusable = |e| failed(folder, "it cannot be used", Some(e));
        fs::create_dir_all(folder).map_err(|e| unusable(Box::new(e)))?;
        let file = folder.join(FILE);
        if !file.exists() {
            create(folder, &file)?;
        }
        // All of it is read now anyway: redb may panic at a damaged page that nobody looked at.
        let mut builder = builder();
        builder.set_check_integrity_on_open(true);
        let database = builder.open(file).map_err(|e| refused(folder, e))?;
        let (format, starts) = begin(&database).map_err(unusable)?;
        if format != FORMAT {
            return Err(version(folder, &format!("format {format}")));
        }
        let disk = Self {
            folder: folder.to_owned(),
            database: Some(database),
        };
        Ok((
            disk,
            u32::try_from(starts & 0x00FF_FFFF).unwrap_or_default(),
        ))
    }

    /// Reads every record, in the order of their keys.
    pub(super) fn load(&self) -> Result<Vec<(FactKey, FactValue)>, Error> {
        let read = || -> Result<Vec<_>, redb::Error> {
            let Some(database) = &self.database else {
                return Ok(Vec::new());
            };
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut facts = Vec::new();
            for record in table.iter()? {
                let (key, value) = record?;
                facts.push(record::decode(key.value(), value.value()));
            }
            Ok(facts)
        };
        let facts = read().map_err(|e| corrupt(&self.folder, e.to_string()))?;
        let facts: Option<Vec<_>> = facts.into_iter().collect();
        facts.ok_or_else(|| corrupt(&self.folder, "a record cannot be read"))
    }

    /// Gives space back to the system if the file is much larger than what is in it.
    pub(super) fn compact(&mut self, stored_bytes: usize) {
        let size = fs::metadata(self.folder.join(FILE)).map_or(0, |file| file.len());
        let needed = COMPACT_ABOVE_BYTES.max(COMPACT_RATIO.saturating_mul(stored_bytes as u64));
        if size <= needed {
            return;
        }
        if let Some(Err(error)) = self.database.as_mut().map(Database::compact) {
            tracing::warn!(%error, "the data folder cannot be compacted");
        }
    }

    /// Writes all changes or none, and syncs them.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<(), Source> {
        let database = match self.database.take() {
            Some(database) => database,
            None => builder().open(self.folder.join(FILE))?,
        };
        write(&database, changes)?;
        self.database = Some(database);
        Ok(())
    }
}

/// Makes an empty file. Under another name first: of one that is not complete redb says that it is
/// damaged, so a broker that was killed meanwhile could not be started again.
fn create(folder: &Path, file: &Path) -> Result<(), Error> {
    let new = folder.join(NEW_FILE);
    let made = builder().create(&new).or_else(|e| match refusal(&e) {
        // What such a broker has left: nothing was confirmed yet.
        Refusal::Damaged(_) => {
            fs::remove_file(&new).map_err(redb::StorageError::from)?;
            builder().create(&new)
        }
        _ => Err(e),
    });
    drop(made.map_err(|e| refused(folder, e))?);
    let moved = fs::rename(&new, file).and_then(|()| fs::File::open(folder)?.sync_all());
    match moved {
        // Another broker that was started at the same time was faster.
        Err(_) if file.exists() && !new.exists() => Ok(()),
        moved => moved.map_err(|e| failed(folder, "it cannot be used", Some(Box::new(e)))),
    }
}

/// Why redb does not open a file.
enum Refusal {
    InUse,
    Version,
    Damaged(String),
    Other,
}

fn refusal(error: &DatabaseError) -> Refusal {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Refusal::InUse,
        DatabaseError::UpgradeRequired(_) => Refusal::Version,
        DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => {
            Refusal::Damaged(reason.clone())
        }
        DatabaseError::Storage(redb::StorageError::Io(e))
            if e.kind() == std::io::ErrorKind::InvalidData =>
        {
            Refusal::Damaged(e.to_string())
        }
        _ => Refusal::Other,
    }
}

fn refused(folder: &Path, error: DatabaseError) -> Error {
    match refusal(&error) {
        Refusal::InUse => {
            let reason = "another broker uses it: stop that one, or choose another folder";
            failed(folder, reason, Some(Box::new(error)))
        }
        Refusal::Version => version(folder, &error.to_string()),
        Refusal::Damaged(reason) => corrupt(folder, reason),
        Refusal::Other => failed(folder, "it cannot be used", Some(Box::new(error))),
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for (key, value) in changes {
            match value {
                Some(value) => table.insert(&**key, &**value)?,
                None => table.remove(&**key)?,
            };
        }
    }
    Ok(transaction.commit()?)
}

/// Reads the format and counts the start; a new file gets the present format.
fn begin(database: &Database) -> Result<(u64, u64), Source> {
    let transaction = database.begin_write()?;
    let mut table = transaction.open_table(ABOUT)?;
    let number = |key| -> Result<Option<u64>, redb::StorageError> {
        Ok(table.get(key)?.map(|value| value.value()))
    };
    let format = number(FORMAT_KEY)?.unwrap_or(FORMAT);
    let starts = number(STARTS_KEY)?.unwrap_or(0) + 1;
    if format != FORMAT {
        // Nothing of another version is touched.
        return Ok((format, starts));
    }
    table.insert(FORMAT_KEY, format)?;
    table.insert(STARTS_KEY, starts)?;
    drop(table);
    drop(transaction.open_table(RECORDS)?);
    transaction.commit()?;
    Ok((format, starts))
}

pub(super) fn failed(
    folder: &Path,
    reason: impl Into<Cow<'static, str>>,
    source: Option<Source>,
) -> Error {
    let reason = format!("{}: {}", folder.display(), reason.into());
    Error::setup("cannot open the data folder", reason, source)
}

pub(super) fn corrupt(folder: &Path, why: impl Into<String>) -> Error {
    let reason = "its file is damaged: move it away to begin anew";
    failed(folder, reason, Some(why.into().into()))
}

fn version(folder: &Path, found: &str) -> Error {
    let reason = format!(
        "it was written by another version of this broker ({found}; this one writes format \
         {FORMAT}): use that version or another folder"
    );
    failed(folder, reason, None)
}
