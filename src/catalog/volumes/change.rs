//! Changes of volumes that exist: names, labels, limits. The volume may be in use.

use std::collections::BTreeMap;

use super::lock::Locked;
use super::row::{State, Volume, Volumes, require_free, text};
use crate::catalog::database::{ToSql, params};
use crate::catalog::error::Result;
use crate::types::VolumeName;

impl Volumes {
    /// Gives a volume another name. The volume may be in use.
    ///
    /// # Errors
    /// [`Exists`](crate::catalog::error::CatalogError::Exists).
    pub fn rename(&self, mut locked: Locked, to: &VolumeName) -> Result<()> {
        self.database.write(|transaction| {
            require_free(transaction, to)?;
            let values = params![to.as_str(), locked.volume.id];
            transaction.execute("UPDATE volume SET name = ?1, stale = 1 WHERE id = ?2", values)?;
            Ok(())
        })?;
        locked.volume.name = to.clone();
        self.write_record(&locked.volume, State::Ready)
    }

    /// Sets labels, and removes those without a value. The volume may be in use.
    ///
    /// # Errors
    /// [`Missing`](crate::catalog::error::CatalogError::Missing).
    pub fn label(
        &self,
        name: &VolumeName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Volume> {
        let mut locked = self.lock(name)?;
        for (key, value) in changes {
            match value {
                Some(value) => locked.volume.labels.insert(key.clone(), value.clone()),
                None => locked.volume.labels.remove(key),
            };
        }
        self.update(
            &locked,
            "UPDATE volume SET labels = ?1, stale = 1 WHERE id = ?2",
            params![text(&locked.volume.labels)?, locked.volume.id],
        )?;
        Ok(locked.volume)
    }

    /// Notes new limits, which the driver has set.
    ///
    /// # Errors
    /// [`Database`](crate::catalog::error::CatalogError::Database).
    pub fn set_limits(
        &self,
        locked: &mut Locked,
        size_bytes: Option<u64>,
        inodes: Option<u64>,
    ) -> Result<()> {
        (locked.volume.size_bytes, locked.volume.inodes) = (size_bytes, inodes);
        let (size, inodes) = (size_bytes.map(u64::cast_signed), inodes.map(u64::cast_signed));
        let statement = "UPDATE volume SET size = ?1, inodes = ?2, stale = 1 WHERE id = ?3";
        self.update(locked, statement, params![size, inodes, locked.volume.id])
    }

    /// Notes new options of the driver.
    ///
    /// # Errors
    /// [`Database`](crate::catalog::error::CatalogError::Database).
    pub fn set_options(
        &self,
        locked: &mut Locked,
        options: BTreeMap<String, String>,
    ) -> Result<()> {
        locked.volume.options = options;
        let text = text(&locked.volume.options)?;
        let statement = "UPDATE volume SET options = ?1, stale = 1 WHERE id = ?2";
        self.update(locked, statement, params![text, locked.volume.id])
    }

    fn update(&self, locked: &Locked, statement: &str, values: &[&dyn ToSql]) -> Result<()> {
        self.database.write(|transaction| {
            transaction.execute(statement, values)?;
            Ok(())
        })?;
        self.write_record(&locked.volume, State::Ready)
    }
}
