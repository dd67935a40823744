//! Snapshots in the catalogue: rows with an origin. A snapshot has a directory, a record and a lock
//! of its own, and it stays when its volume goes.

use super::lock::Locked;
use super::row::{Volume, Volumes};
use crate::catalog::database::params;
use crate::catalog::error::{CatalogError, Result};

impl Volumes {
    /// The snapshots of a volume, by name; of all volumes, also of removed ones, without an id.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn snapshots(&self, origin: Option<&str>) -> Result<Vec<Volume>> {
        let found = match origin {
            Some(id) => self.select("state = 1 AND origin = ?1", params![id])?,
            None => self.select("state = 1 AND origin <> ''", params![])?,
        };
        Ok(found.into_iter().map(|(snapshot, _)| snapshot).collect())
    }

    /// Finds a snapshot by its id, or by the volume and its name.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find_snapshot(&self, text: &str) -> Result<Volume> {
        let found = match text.split_once('@') {
            Some((volume, name)) => {
                let origin = self.find(&volume.parse()?)?.id;
                self.select("state = 1 AND origin = ?1 AND name = ?2", params![origin, name])?
            }
            None => self.select("state = 1 AND origin <> '' AND id = ?1", params![text])?,
        };
        let missing = || CatalogError::Missing { kind: "snapshot", name: text.to_owned() };
        found.into_iter().next().map(|(snapshot, _)| snapshot).ok_or_else(missing)
    }

    /// Waits for the state lock of a snapshot, and reads its record under it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn lock_snapshot(&self, text: &str) -> Result<Locked> {
        self.lock_found(|| self.find_snapshot(text))
    }
}
