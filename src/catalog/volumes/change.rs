//! Changes of volumes that exist: names, labels, limits. The volume may be in use.

use std::collections::BTreeMap;

use super::lock::Locked;
use super::row::{State, Volume, Volumes, text};
use crate::catalog::database::{ToSql, params};
use crate::catalog::error::{CatalogError, Result};
use crate::types::VolumeName;

impl Volumes {
    /// Gives a volume another name. The volume may be in use.
    ///
    /// # Errors
    /// [`CatalogError::Missing`], [`CatalogError::Exists`].
    pub fn rename(&self, name: &VolumeName, to: &VolumeName) -> Result<()> {
        let mut locked = self.lock(name)?;
        self.database.write(|transaction| {
            let taken: i64 = transaction.query_row(
                "SELECT count(*) FROM volume WHERE name = ?1 AND origin = '' AND state < 2",
                params![to.as_str()],
                |row| row.get(0),
            )?;
            if taken > 0 {
                let (kind, name) = ("volume", to.to_string());
                return Err(CatalogError::Exists { kind, name }.into());
            }
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
    /// [`CatalogError::Missing`].
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
            &text(&locked.volume.labels)?,
        )?;
        Ok(locked.volume)
    }

    /// Notes new limits, which the driver has set.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn set_limits(
        &self,
        locked: &mut Locked,
        size_bytes: Option<u64>,
        inodes: Option<u64>,
    ) -> Result<()> {
        (locked.volume.size_bytes, locked.volume.inodes) = (size_bytes, inodes);
        let (size, inodes) = (size_bytes.map(u64::cast_signed), inodes.map(u64::cast_signed));
        self.update(locked, "UPDATE volume SET size = ?1, stale = 1 WHERE id = ?2", &size)?;
        self.update(locked, "UPDATE volume SET inodes = ?1, stale = 1 WHERE id = ?2", &inodes)
    }

    fn update(&self, locked: &Locked, statement: &str, value: &dyn ToSql) -> Result<()> {
        self.database.write(|transaction| {
            transaction.execute(statement, params![value, locked.volume.id])?;
            Ok(())
        })?;
        self.write_record(&locked.volume, State::Ready)
    }
}
