//! The creation of volumes.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::record;
use super::row::{
    COLUMNS, DATA, GROWING, NewVolume, State, Volume, Volumes, has_row, insert, new_id, seconds,
    shown_time,
};
use crate::catalog::database::{OptionalExtension, Outcome, Transaction, params};
use crate::catalog::error::{CatalogError, Result};
use crate::error::FromHost;
use crate::store::files::{make_dir, sync_file_system};

/// What became of the wish for a volume.
pub enum Begun {
    /// It exists.
    Exists(Volume),
    /// It is to be made by the caller.
    New(Growing),
}

/// A volume that its driver makes. Nobody else sees it before [`Volumes::finish`].
pub struct Growing {
    volume: Volume,
    _lock: File,
}

impl Growing {
    /// The volume that is being made.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }
}

enum Entered {
    New(Growing),
    Found(Volume, State),
}

impl Volumes {
    /// Begins to make a volume. While another process makes one of this name, waits for it.
    ///
    /// # Errors
    /// [`CatalogError`]. A crash before [`Volumes::finish`] leaves nothing that a user sees.
    pub fn begin(&self, new: &NewVolume) -> Result<Begun> {
        make_dir(&self.dir)?;
        loop {
            let found = self.database.write(|transaction| self.enter(transaction, new))?;
            match found {
                Entered::New(growing) => return Ok(Begun::New(growing)),
                Entered::Found(volume, State::Ready) => return Ok(Begun::Exists(volume)),
                Entered::Found(volume, _) => self.await_growth(&volume)?,
            }
        }
    }

    /// Takes the lock of a new id, and makes the directory and the row in one transaction: another
    /// process that sees the row can wait for the lock. A crash before the commit leaves an empty
    /// directory.
    fn enter(&self, transaction: &Transaction<'_>, new: &NewVolume) -> Outcome<Entered> {
        let name = new.name.as_str();
        let found = transaction
            .query_row(
                &format!(
                    "SELECT {COLUMNS} FROM volume WHERE name = ?1 AND origin = ?2 AND state < 2"
                ),
                params![name, new.origin],
                |row| Ok(self.volume(row)),
            )
            .optional()?;
        if let Some(found) = found {
            let (volume, state) = found?;
            return Ok(Entered::Found(volume, state));
        }
        // Nobody else knows the new id, but a sweep that looks at all locks: it is not waited for
        // within the transaction.
        let (id, lock) = loop {
            let id = new_id()?;
            if let Some(lock) = self.try_lock_id(&id)? {
                break (id, lock);
            }
        };
        let mut dir = match new.origin.as_str() {
            "" => name.to_owned(),
            origin => format!("{name}@{}", origin.get(..8).unwrap_or(origin)),
        };
        if fs::symlink_metadata(self.dir.join(&dir)).is_ok() || has_row(transaction, &dir)? {
            dir = format!("{}.{}", name.get(..100).unwrap_or(name), id.get(..8).unwrap_or(&id));
        }
        let directory = self.dir.join(&dir);
        make_place(&directory, &id)?;
        let volume = Volume {
            name: new.name.clone(),
            id,
            driver: new.driver.clone(),
            options: new.options.clone(),
            labels: new.labels.clone(),
            created_at: shown_time(seconds(SystemTime::now())),
            mountpoint: directory.join(DATA),
            size_bytes: new.size_bytes,
            inodes: new.inodes,
            origin: new.origin.clone(),
        };
        insert(transaction, &volume, &dir, State::Growing)?;
        Ok(Entered::New(Growing { volume, _lock: lock }))
    }

    /// Waits until a volume that another process makes is there, or removes it if that was killed.
    fn await_growth(&self, seen: &Volume) -> Result<()> {
        let _lock = self.lock_id(&seen.id)?;
        let still = self.select("id = ?1 AND state = 0", params![seen.id])?;
        if still.is_empty() { Ok(()) } else { self.erase(seen) }
    }

    /// Shows a volume that its driver has made.
    ///
    /// # Errors
    /// [`CatalogError`]; the volume is not there then.
    pub fn finish(&self, growing: Growing) -> Result<Volume> {
        let volume = growing.volume.clone();
        self.finish_all(vec![growing])?;
        Ok(volume)
    }

    /// Shows volumes that their drivers have made, all of them or none, also after a crash.
    ///
    /// # Errors
    /// [`CatalogError`]; none of the volumes is there then.
    pub fn finish_all(&self, all: Vec<Growing>) -> Result<()> {
        let written = all.iter().try_for_each(|one| {
            record::write(&one.volume, State::Ready)?;
            sync_file_system(&one.volume.mountpoint)?;
            Ok(())
        });
        let done = written.and_then(|()| {
            self.database.write(|transaction| {
                let ready = "UPDATE volume SET state = 1, stale = 0 WHERE id = ?1";
                for one in &all {
                    transaction.execute(ready, params![one.volume.id])?;
                }
                Ok(())
            })
        });
        if done.is_err() {
            all.iter().for_each(|growing| self.give_up(growing));
        }
        done
    }

    /// Removes a volume that its driver could not make.
    pub fn give_up(&self, growing: &Growing) {
        if let Err(error) = self.erase(&growing.volume) {
            tracing::warn!(
                "what was made of volume {:?} stays: {error}",
                growing.volume.name.as_str()
            );
        }
    }
}

/// Makes the directory of a volume, with an empty content. It appears whole under its name.
fn make_place(directory: &Path, id: &str) -> Result<()> {
    let new = directory.with_file_name(format!("{GROWING}{id}"));
    fs::DirBuilder::new().mode(0o700).create(&new).map_err(CatalogError::io(&new))?;
    let data = new.join(DATA);
    fs::create_dir(&data).map_err(CatalogError::io(&data))?;
    // Whatever the file mode creation mask took away.
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&data, mode).map_err(CatalogError::io(&data))?;
    fs::rename(&new, directory).map_err(CatalogError::io(directory))
}
