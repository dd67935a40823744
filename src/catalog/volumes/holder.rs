//! The holders of volumes: names of users that are not processes of this host, such as the mount
//! ids of Docker.
//!
//! A holder is a member of a set. It outlives the process that serves it, and it may be forgotten
//! by its owner: it does not keep a volume from being removed.

use std::time::SystemTime;

use super::lock::Locked;
use super::row::{Volume, Volumes, seconds};
use crate::catalog::database::params;
use crate::catalog::error::Result;

impl Volumes {
    /// Adds a holder, and returns how many there are.
    ///
    /// # Errors
    /// [`CatalogError::Database`](crate::catalog::error::CatalogError::Database).
    pub fn add_holder(&self, locked: &Locked, holder: &str) -> Result<u64> {
        let id = &locked.volume().id;
        self.database.write(|transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO holder (volume, holder, since) VALUES (?1, ?2, ?3)",
                params![id, holder, seconds(SystemTime::now())],
            )?;
            count(transaction, id)
        })
    }

    /// Removes a holder if it is one, and returns how many are left.
    ///
    /// # Errors
    /// [`CatalogError::Database`](crate::catalog::error::CatalogError::Database).
    pub fn remove_holder(&self, locked: &Locked, holder: &str) -> Result<u64> {
        let id = &locked.volume().id;
        self.database.write(|transaction| {
            let gone = "DELETE FROM holder WHERE volume = ?1 AND holder = ?2";
            transaction.execute(gone, params![id, holder])?;
            count(transaction, id)
        })
    }

    /// Whether a volume has holders.
    ///
    /// # Errors
    /// [`CatalogError::Database`](crate::catalog::error::CatalogError::Database).
    pub fn is_held(&self, volume: &Volume) -> Result<bool> {
        self.database.read(|connection| Ok(count(connection, &volume.id)? > 0))
    }

    /// The holders of a volume, in their order.
    ///
    /// # Errors
    /// [`CatalogError::Database`](crate::catalog::error::CatalogError::Database).
    pub fn holders(&self, volume: &Volume) -> Result<Vec<String>> {
        self.database.read(|connection| {
            let query = "SELECT holder FROM holder WHERE volume = ?1 ORDER BY holder";
            let mut query = connection.prepare_cached(query)?;
            let found = query.query_map(params![volume.id], |row| row.get(0))?;
            Ok(found.collect::<std::result::Result<_, _>>()?)
        })
    }

    /// The volumes that have holders.
    ///
    /// # Errors
    /// [`CatalogError::Database`](crate::catalog::error::CatalogError::Database).
    pub fn held(&self) -> Result<Vec<Volume>> {
        let held = "state = 1 AND id IN (SELECT volume FROM holder)";
        Ok(self.select(held, params![])?.into_iter().map(|(volume, _)| volume).collect())
    }
}

fn count(
    connection: &crate::catalog::database::Connection,
    id: &str,
) -> crate::catalog::database::Outcome<u64> {
    let query = "SELECT count(*) FROM holder WHERE volume = ?1";
    let count: i64 = connection.query_row(query, params![id], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}
