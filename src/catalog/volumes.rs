//! Named volumes: directories below the data root that outlive containers and mounts.
//!
//! The catalogue knows each volume by an id: name, driver, options, labels, limits, state. A rename
//! changes a row and moves nothing. The directory `volumes/DIR/` has the content in `_data`, a copy
//! of the row in `volume.json`, and the files of the driver. DIR is the first name of the volume,
//! with digits behind it where that was taken.
//!
//! | state | meaning | after a crash |
//! | --- | --- | --- |
//! | growing | its driver makes it; the state lock is held | removed by the next command |
//! | ready | a user sees it | |
//! | trashed | it lost its name, and can be brought back | |
//! | going | it is removed; the state lock is held | the removal is continued |
//!
//! An empty directory without a row is the rest of a crash and is swept.

mod change;
mod create;
mod holder;
mod lock;
mod record;
mod remove;
mod row;
mod snapshot;

use std::path::Path;

use super::database::{self, Database};
use super::error::{CatalogError, Result};
use crate::error::FromHost;

pub use create::{Begun, Growing};
pub use lock::{Locked, OpenVolume};
pub use record::Recovered;
pub use remove::Trashed;
pub(crate) use row::new_id;
pub use row::{EndContent, NewVolume, Volume, Volumes};

/// Removes the catalogue of a data root that a failed mount had made, and the root, unless there
/// are volumes or other users by now.
///
/// # Errors
/// As open(2) and unlink(2).
pub fn discard(root: &Path) -> Result<()> {
    database::discard(root)
}

/// Opens the catalogue of a data root; volumes of before there was one are taken over.
pub(super) fn open_database(root: &Path) -> Result<Database> {
    let dir = root.join("volumes");
    Database::open(root, |transaction| {
        for what in record::take_over(transaction, &dir)?.skipped {
            tracing::warn!(what, "not taken over into the catalogue");
        }
        Ok(())
    })
}

impl Volumes {
    /// The volumes of a data root. Volumes of before there was a catalogue are taken over.
    ///
    /// # Errors
    /// [`CatalogError::Database`], [`CatalogError::Newer`].
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(CatalogError::io(root))?;
        let dir = root.join("volumes");
        let database = open_database(&root)?;
        let volumes = Self { database, dir, end: |_| Ok(()) };
        // What cannot be written now is written later; the catalogue is right without it.
        if let Err(error) = volumes.write_stale() {
            tracing::warn!(%error, "the record of a volume is older than the catalogue");
        }
        Ok(volumes)
    }

    /// Calls a function for each volume before it is removed for good. Where that fails, the volume
    /// goes to the trash, from which it is removed later.
    #[must_use]
    pub fn ended_by(self, end: EndContent) -> Self {
        Self { end, ..self }
    }
}

#[cfg(test)]
mod tests;
