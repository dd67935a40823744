//! The rows of volumes in the catalogue.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::catalog::database::{self, Database, Outcome, Row, ToSql, Transaction, params};
use crate::catalog::error::{CatalogError, Result};
use crate::error::FromHost;
use crate::sys;
use crate::types::{VolumeName, hex};

/// The content of a volume, in its directory.
pub(super) const DATA: &str = "_data";

/// A volume, as JSON shows it. The record in its directory is another form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The name.
    pub name: VolumeName,
    /// The id, 32 hexadecimal digits, which no other volume ever has.
    pub id: String,
    /// The name of the driver.
    pub driver: String,
    /// The options of the driver.
    pub options: BTreeMap<String, String>,
    /// The labels that its users gave it.
    pub labels: BTreeMap<String, String>,
    /// The time of its creation (RFC 3339).
    pub created_at: String,
    /// The directory of its content.
    pub mountpoint: PathBuf,
    /// The limit of its size, in bytes.
    pub size_bytes: Option<u64>,
    /// The limit of its inodes.
    pub inodes: Option<u64>,
    /// For a snapshot, the id of its volume; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
}

impl Volume {
    /// The directory with the content and the files of the driver.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.mountpoint.parent().unwrap_or(&self.mountpoint)
    }
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// The name.
    pub name: VolumeName,
    /// The name of the driver.
    pub driver: String,
    /// The options of the driver.
    pub options: BTreeMap<String, String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The limit of the size, in bytes.
    pub size_bytes: Option<u64>,
    /// The limit of the inodes.
    pub inodes: Option<u64>,
    /// For a snapshot, the id of its volume; else empty.
    pub origin: String,
}

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Growing = 0,
    Ready = 1,
    Trashed = 2,
    Going = 3,
}

/// The volumes of a data root.
pub struct Volumes {
    pub(super) database: Database,
    pub(super) dir: PathBuf,
    pub(super) end: EndContent,
}

/// Ends what the driver of a volume keeps outside its directory. A failure is a sentence.
pub type EndContent = fn(&Volume) -> std::result::Result<(), String>;

impl Volumes {
    /// Finds a volume.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find(&self, name: &VolumeName) -> Result<Volume> {
        let found =
            self.select("name = ?1 AND origin = '' AND state = 1", params![name.as_str()])?.pop();
        found.map(|(volume, _)| volume).ok_or_else(|| missing(name))
    }

    /// Finds a volume by its id.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find_id(&self, id: &str) -> Result<Volume> {
        let found = self.select("id = ?1 AND origin = '' AND state = 1", params![id])?.pop();
        let missing = || CatalogError::Missing { kind: "volume", name: id.to_owned() };
        found.map(|(volume, _)| volume).ok_or_else(missing)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        let found = self.select("state = 1 AND origin = ''", params![])?;
        Ok(found.into_iter().map(|(volume, _)| volume).collect())
    }

    /// The other volumes with a size, also those that are being made. What is in the trash is
    /// written no more.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn sized_but(&self, id: &str) -> Result<Vec<Volume>> {
        let which = "state < 2 AND origin = '' AND size IS NOT NULL AND id != ?1";
        let found = self.select(which, params![id])?;
        Ok(found.into_iter().map(|(volume, _)| volume).collect())
    }

    pub(super) fn select(
        &self,
        which: &str,
        values: &[&dyn ToSql],
    ) -> Result<Vec<(Volume, State)>> {
        let query = format!("SELECT {COLUMNS} FROM volume WHERE {which} ORDER BY name, id");
        self.database.read(|connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map(values, |row| Ok(self.volume(row)))?;
            let mut found = Vec::new();
            for row in rows {
                found.push(row??);
            }
            Ok(found)
        })
    }

    /// The volume of a row of [`COLUMNS`].
    pub(super) fn volume(&self, row: &Row<'_>) -> Outcome<(Volume, State)> {
        let damaged = |what: String| self.database.damaged(format!("volume: {what}"));
        let text = |index: usize| row.get::<_, String>(index);
        let map = |index: usize| -> Outcome<BTreeMap<String, String>> {
            let map = serde_json::from_str(&text(index)?);
            Ok(map.map_err(|error| damaged(error.to_string()))?)
        };
        let number = |index: usize| -> Outcome<Option<u64>> {
            Ok(row.get::<_, Option<i64>>(index)?.map(i64::cast_unsigned))
        };
        let dir = text(2)?;
        if dir.is_empty() || dir.starts_with('.') || dir.contains('/') {
            return Err(damaged(format!("invalid directory {dir:?}")).into());
        }
        let id = text(0)?;
        if !hex::is_hex(&id, ID_DIGITS) {
            return Err(damaged(format!("invalid id {id:?}")).into());
        }
        let state = match row.get(4)? {
            0 => State::Growing,
            1 => State::Ready,
            2 => State::Trashed,
            3 => State::Going,
            other => return Err(damaged(format!("invalid state {other}")).into()),
        };
        let name = text(1)?.try_into();
        let volume = Volume {
            id,
            name: name.map_err(CatalogError::BadObjectName)?,
            mountpoint: self.dir.join(dir).join(DATA),
            driver: text(3)?,
            created_at: shown_time(row.get(5)?),
            size_bytes: number(6)?,
            inodes: number(7)?,
            options: map(8)?,
            labels: map(9)?,
            origin: text(10)?,
        };
        Ok((volume, state))
    }
}

/// The columns that [`Volumes::volume`] reads.
pub(super) const COLUMNS: &str =
    "id, name, dir, driver, state, created, size, inodes, options, labels, origin";

pub(super) fn insert(
    transaction: &Transaction<'_>,
    volume: &Volume,
    dir: &str,
    state: State,
) -> Outcome<()> {
    let created = humantime::parse_rfc3339_weak(&volume.created_at);
    let created = seconds(created.unwrap_or(SystemTime::UNIX_EPOCH));
    transaction.execute(
        "INSERT INTO volume (id, name, dir, driver, state, created, changed, size, inodes, options,
         labels, origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?12, ?7, ?8, ?9, ?10, ?11)",
        params![
            volume.id,
            volume.name.as_str(),
            dir,
            volume.driver,
            state as i64,
            created,
            volume.size_bytes.map(u64::cast_signed),
            volume.inodes.map(u64::cast_signed),
            text(&volume.options)?,
            text(&volume.labels)?,
            volume.origin,
            seconds(SystemTime::now()),
        ],
    )?;
    Ok(())
}

/// Whether a directory below `volumes/` belongs to a row.
pub(super) fn has_row(transaction: &Transaction<'_>, dir: &str) -> Outcome<bool> {
    let query = "SELECT count(*) FROM volume WHERE dir = ?1";
    let count: i64 = transaction.query_row(query, params![dir], |row| row.get(0))?;
    Ok(count > 0)
}

/// Refuses a name that a volume has.
pub(super) fn require_free(transaction: &Transaction<'_>, name: &VolumeName) -> Outcome<()> {
    let query = "SELECT count(*) FROM volume WHERE name = ?1 AND origin = '' AND state < 2";
    let taken: i64 = transaction.query_row(query, params![name.as_str()], |row| row.get(0))?;
    if taken == 0 {
        return Ok(());
    }
    Err(CatalogError::Exists { kind: "volume", name: name.to_string() }.into())
}

pub(super) fn text(map: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(map).map_err(|error| CatalogError::Damaged {
        path: PathBuf::from(database::FILE),
        what: error.to_string(),
    })
}

pub(super) fn missing(name: &VolumeName) -> CatalogError {
    CatalogError::Missing { kind: "volume", name: name.to_string() }
}

/// Begins the name of a directory that is being made, before the id.
pub(super) const GROWING: &str = ".growing-";

/// The digits of an id. Nothing else becomes the name of a file.
pub(super) const ID_DIGITS: usize = 32;

/// A new id: 128 random bits in hexadecimal.
pub(crate) fn new_id() -> Result<String> {
    let random = sys::process::random().map_err(CatalogError::host(Path::new("getrandom")))?;
    Ok(hex::encode(random.get(..16).unwrap_or(&random)))
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time in RFC 3339.
pub(super) fn shown_time(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
