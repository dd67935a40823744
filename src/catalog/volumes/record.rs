//! The record beside the content of a volume, `volume.json`: what `lamina volume recover` builds a
//! lost catalogue from.
//!
//! It is written after the catalogue. A row is *stale* from the commit of a change until its record
//! is on disk, so that a crash between the two is made good by the next process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::row::{
    DATA, ID_DIGITS, State, Volume, Volumes, has_row, insert, new_id, seconds, shown_time,
};
use crate::catalog::database::{Outcome, Transaction, params};
use crate::catalog::error::{CatalogError, Result};
use crate::error::FromHost;
use crate::store::files::{listed, write_whole};
use crate::types::{VolumeName, hex};

/// The record in the directory of a volume.
pub(super) const RECORD: &str = "volume.json";
/// No record is longer: 1 MiB.
const RECORD_MAX: u64 = 1 << 20;

/// A record. The names of the fields are those of Docker; a record of before there were drivers has
/// the first three alone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    name: VolumeName,
    created_at: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    id: String,
    #[serde(default = "local")]
    driver: String,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    size_bytes: Option<u64>,
    #[serde(default)]
    inodes: Option<u64>,
    /// For a snapshot, the id of its volume.
    #[serde(default)]
    origin: String,
    /// Whether the volume is in the trash.
    #[serde(default)]
    trashed: bool,
}

fn local() -> String {
    "local".to_owned()
}

/// Writes the record of a volume.
pub(super) fn write(volume: &Volume, state: State) -> Result<()> {
    let path = volume.directory().join(RECORD);
    let record = Record {
        name: volume.name.clone(),
        created_at: volume.created_at.clone(),
        labels: volume.labels.clone(),
        id: volume.id.clone(),
        driver: volume.driver.clone(),
        options: volume.options.clone(),
        size_bytes: volume.size_bytes,
        inodes: volume.inodes,
        origin: volume.origin.clone(),
        trashed: state == State::Trashed,
    };
    let damaged = |error: serde_json::Error| CatalogError::Damaged {
        path: path.clone(),
        what: error.to_string(),
    };
    Ok(write_whole(&path, &serde_json::to_vec_pretty(&record).map_err(damaged)?)?)
}

/// Reads the record in a directory; `None` if it has none, so that it is no volume.
fn read(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join(RECORD);
    let file = match fs::File::open(&path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        opened => opened.map_err(CatalogError::io(&path))?,
    };
    let mut text = Vec::new();
    file.take(RECORD_MAX).read_to_end(&mut text).map_err(CatalogError::io(&path))?;
    let damaged = |error: serde_json::Error| CatalogError::Damaged {
        path: path.clone(),
        what: error.to_string(),
    };
    Ok(Some(serde_json::from_slice(&text).map_err(damaged)?))
}

/// What was found in the directories of a data root.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The volumes that came into the catalogue.
    pub volumes: Vec<String>,
    /// The directories that did not, with the reason.
    pub skipped: Vec<String>,
}

/// Enters the volumes in the directories below `dir` that the catalogue does not have.
pub(super) fn take_over(transaction: &Transaction<'_>, dir: &Path) -> Outcome<Recovered> {
    let mut found = Recovered::default();
    if !dir.exists() {
        return Ok(found);
    }
    for entry in listed(dir).map_err(CatalogError::from)? {
        if has_row(transaction, &entry)? {
            continue;
        }
        match read(&dir.join(&entry)) {
            Ok(None) => {}
            Ok(Some(record)) => enter(transaction, &entry, record, &mut found)?,
            Err(error) => found.skipped.push(format!("{entry}: {error}")),
        }
    }
    Ok(found)
}

fn enter(
    transaction: &Transaction<'_>,
    dir: &str,
    record: Record,
    found: &mut Recovered,
) -> Outcome<()> {
    let count = |query: &str, value: &str| -> Outcome<i64> {
        Ok(transaction.query_row(query, params![value], |row| row.get(0))?)
    };
    let name = record.name.as_str();
    let taken = "SELECT count(*) FROM volume WHERE name = ?1 AND origin = ?2 AND state < 2";
    let values = params![name, record.origin];
    let is_taken = transaction.query_row(taken, values, |row| row.get::<_, i64>(0))? > 0;
    if is_taken && !record.trashed {
        found.skipped.push(format!("{dir}: the name {name} is taken"));
        return Ok(());
    }
    // A directory that somebody copied has the id of another one.
    let is_known = count("SELECT count(*) FROM volume WHERE id = ?1", &record.id)? > 0;
    let is_id = hex::is_hex(&record.id, ID_DIGITS);
    let id = if is_id && !is_known { record.id } else { new_id()? };
    let created = humantime::parse_rfc3339_weak(&record.created_at).unwrap_or(UNIX_EPOCH);
    let state = if record.trashed { State::Trashed } else { State::Ready };
    let volume = Volume {
        name: record.name,
        id,
        driver: record.driver,
        options: record.options,
        labels: record.labels,
        created_at: shown_time(seconds(created)),
        mountpoint: Path::new(dir).join(DATA),
        size_bytes: record.size_bytes,
        inodes: record.inodes,
        origin: record.origin,
    };
    insert(transaction, &volume, dir, state)?;
    found.volumes.push(volume.name.into());
    Ok(())
}

impl Volumes {
    /// Enters the volumes whose directories the catalogue does not have, as after a loss of it.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn recover(&self) -> Result<Recovered> {
        let found = self.database.write(|transaction| take_over(transaction, &self.dir))?;
        self.write_stale()?;
        Ok(found)
    }

    /// Writes the records of changes that a crash interrupted. A volume whose state lock is held
    /// is left to its holder.
    pub(super) fn write_stale(&self) -> Result<()> {
        for (seen, _) in self.select("stale = 1 AND state IN (1, 2)", params![])? {
            let Some(_lock) = self.try_lock_id(&seen.id)? else { continue };
            let now = self.select("stale = 1 AND state IN (1, 2) AND id = ?1", params![seen.id])?;
            for (volume, state) in now {
                self.write_record(&volume, state)?;
            }
        }
        Ok(())
    }

    /// Writes the record of a volume, whose state lock the caller holds.
    pub(super) fn write_record(&self, volume: &Volume, state: State) -> Result<()> {
        write(volume, state)?;
        self.database.write(|transaction| {
            transaction.execute("UPDATE volume SET stale = 0 WHERE id = ?1", params![volume.id])?;
            Ok(())
        })
    }
}
