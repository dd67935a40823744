//! Removal of volumes: the trash, the end, and what crashes left.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::lock::Locked;
use super::record::RECORD;
use super::row::{
    DATA, GROWING, State, Volume, Volumes, has_row, require_free, seconds, shown_time,
};
use crate::catalog::database::{Outcome, Transaction, params};
use crate::catalog::error::{CatalogError, Result};
use crate::error::{Errno, FromHost};
use crate::store::files::open_dir;
use crate::sys;
use crate::types::VolumeName;

/// A volume in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trashed {
    /// The volume, with the name that it had.
    #[serde(flatten)]
    pub volume: Volume,
    /// The time of its removal (RFC 3339).
    pub removed_at: String,
    /// The same in seconds since 1970.
    #[serde(skip)]
    pub removed: i64,
}

impl Volumes {
    /// Takes a volume out of sight, with its content.
    ///
    /// # Errors
    /// [`CatalogError::InUse`]. A crash leaves the volume as it was, or in the trash.
    pub fn trash(&self, locked: Locked) -> Result<()> {
        locked.require_idle()?;
        self.set_trashed(&locked.volume)
    }

    fn set_trashed(&self, volume: &Volume) -> Result<()> {
        self.set_state(volume, State::Trashed)?;
        self.write_record(volume, State::Trashed)
    }

    /// Removes a volume with its content.
    ///
    /// # Errors
    /// [`CatalogError::InUse`]. A crash leaves the volume as it was, or a rest that nobody sees and
    /// that [`Volumes::sweep`] removes.
    pub fn remove(&self, locked: Locked) -> Result<()> {
        locked.require_idle()?;
        self.erase(&locked.volume)
    }

    /// Removes several volumes with their content. Nobody sees any of them from one moment on.
    ///
    /// # Errors
    /// As [`Volumes::remove`].
    pub fn remove_all(&self, all: Vec<Locked>) -> Result<()> {
        all.iter().try_for_each(Locked::require_idle)?;
        self.database.write(|transaction| {
            all.iter().try_for_each(|one| enter_state(transaction, &one.volume, State::Going))
        })?;
        all.iter().try_for_each(|one| self.erase(&one.volume))
    }

    /// The volumes in the trash, the oldest removal first.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn trashed(&self) -> Result<Vec<Trashed>> {
        let mut all = Vec::new();
        for (volume, _) in self.select("state = 2", params![])? {
            let removed: i64 = self.database.read(|connection| {
                let query = "SELECT changed FROM volume WHERE id = ?1";
                Ok(connection.query_row(query, params![volume.id], |row| row.get(0))?)
            })?;
            all.push(Trashed { volume, removed_at: shown_time(removed), removed });
        }
        all.sort_by_key(|trashed| trashed.removed);
        Ok(all)
    }

    /// Brings a volume back from the trash: the last one of this name, or the one with this id.
    ///
    /// # Errors
    /// [`CatalogError::Missing`], [`CatalogError::Exists`] where the name is taken by now.
    pub fn undelete(&self, text: &str, to: Option<&VolumeName>) -> Result<Volume> {
        let matches = |one: &&Trashed| one.volume.name.as_str() == text || one.volume.id == text;
        let trashed = self.trashed()?;
        let found = trashed.iter().rfind(matches);
        let none = || CatalogError::Missing { kind: "removed volume", name: text.to_owned() };
        let mut volume = found.ok_or_else(none)?.volume.clone();
        let _lock = self.lock_id(&volume.id)?;
        if let Some(name) = to {
            volume.name = name.clone();
        }
        self.database.write(|transaction| {
            let name = volume.name.as_str();
            require_free(transaction, &volume.name)?;
            let back =
                "UPDATE volume SET state = 1, name = ?1, stale = 1 WHERE id = ?2 AND state = 2";
            match transaction.execute(back, params![name, volume.id])? {
                1 => Ok(()),
                _ => Err(none().into()), // removed for good meanwhile
            }
        })?;
        self.write_record(&volume, State::Ready)?;
        Ok(volume)
    }

    /// Removes a volume in the trash for good, and returns whether it did: one that was brought
    /// back meanwhile stays, also if it was removed again.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn purge(&self, trashed: &Trashed) -> Result<bool> {
        let _lock = self.lock_id(&trashed.volume.id)?;
        let values = params![trashed.volume.id, trashed.removed];
        match self.select("id = ?1 AND state = 2 AND changed = ?2", values)?.first() {
            Some((volume, _)) => self.erase(volume).map(|()| true),
            None => Ok(false),
        }
    }

    /// Removes what crashes left, and returns how many rests there were.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        for (volume, _) in self.select("state IN (0, 3)", params![])? {
            let Some(_lock) = self.try_lock_id(&volume.id)? else { continue };
            let still = self.select("id = ?1 AND state IN (0, 3)", params![volume.id])?;
            if still.is_empty() {
                continue;
            }
            match self.erase(&volume) {
                Ok(()) => swept += 1,
                Err(error) => {
                    tracing::warn!(%error, name = %volume.name, "the rest of a volume stays");
                }
            }
        }
        self.sweep_locks()?;
        Ok(swept + self.sweep_directories()?)
    }

    /// Removes the files of locks of volumes that are gone.
    fn sweep_locks(&self) -> Result<()> {
        for id in self.locked_ids()? {
            if !self.select("id = ?1", params![id])?.is_empty() {
                continue;
            }
            if let Some(_lock) = self.try_lock_id(&id)?
                && self.select("id = ?1", params![id])?.is_empty()
            {
                self.remove_lock(&id)?;
            }
        }
        Ok(())
    }

    /// Removes directories without a row that are the rest of a volume. None of them gets a row
    /// meanwhile: both are made in one transaction.
    fn sweep_directories(&self) -> Result<usize> {
        if !self.dir.exists() {
            return Ok(0);
        }
        self.database.write(|transaction| {
            let mut swept = 0;
            for entry in fs::read_dir(&self.dir).map_err(CatalogError::io(&self.dir))? {
                let entry = entry.map_err(CatalogError::io(&self.dir))?;
                let name = entry.file_name();
                if !has_row(transaction, &name.to_string_lossy())? && remove_rest(&entry.path())? {
                    swept += 1;
                }
            }
            Ok(swept)
        })
    }

    fn set_state(&self, volume: &Volume, state: State) -> Result<()> {
        self.database.write(|transaction| enter_state(transaction, volume, state))
    }

    /// Removes a volume that nobody sees from now on: its record first, so that the rest is no
    /// volume for [`Volumes::recover`], and its row last. The caller holds the state lock.
    pub(super) fn erase(&self, volume: &Volume) -> Result<()> {
        self.set_state(volume, State::Going)?;
        if let Err(what) = (self.end)(volume) {
            self.set_trashed(volume)?;
            return Err(CatalogError::Content { name: volume.name.to_string(), what });
        }
        let directory = volume.directory();
        unmount(directory)?;
        let record = directory.join(RECORD);
        match fs::remove_file(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(CatalogError::io(&record))?,
        }
        remove_tree(directory)?;
        self.database.write(|transaction| {
            transaction.execute("DELETE FROM volume WHERE id = ?1", params![volume.id])?;
            Ok(())
        })?;
        self.remove_lock(&volume.id)
    }
}

fn enter_state(transaction: &Transaction<'_>, volume: &Volume, state: State) -> Outcome<()> {
    transaction.execute("DELETE FROM holder WHERE volume = ?1", params![volume.id])?;
    transaction.execute(
        "UPDATE volume SET state = ?1, changed = ?2, stale = 1 WHERE id = ?3",
        params![state as i64, seconds(SystemTime::now()), volume.id],
    )?;
    Ok(())
}

/// Removes a directory without a row, if it is the rest of a volume: an empty one, as a crash
/// leaves it before the row is committed, or one with a name that versions without a catalogue gave
/// to a volume that they made or removed (`.NAME.PID`, `.NAME.removed.PID`).
fn remove_rest(path: &Path) -> Result<bool> {
    let name = path.file_name().and_then(|name| name.to_str());
    let parts = name.and_then(|name| name.strip_prefix('.')?.rsplit_once('.'));
    let is_old = parts.is_some_and(|(name, pid)| {
        let name = name.strip_suffix(".removed").unwrap_or(name);
        let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        is_number && name.parse::<VolumeName>().is_ok()
    });
    if is_old {
        return remove_tree(path).map(|()| true);
    }
    if name.is_some_and(|name| name.starts_with(GROWING)) {
        return Ok(remove_empty(path));
    }
    let Ok(mut entries) = fs::read_dir(path) else { return Ok(false) };
    let is_empty = entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == DATA));
    let Some(name) = name.filter(|name| is_empty && !name.starts_with('.')) else {
        return Ok(false);
    };
    if !path.join(DATA).is_dir() {
        return Ok(false);
    }
    // A sweep that is killed leaves a name that the next one knows.
    let going = path.with_file_name(format!("{GROWING}{name}"));
    fs::rename(path, &going).map_err(CatalogError::io(path))?;
    if remove_empty(&going) {
        return Ok(true);
    }
    fs::rename(&going, path).map_err(CatalogError::io(&going))?;
    Ok(false)
}

/// Removes a directory with an empty content, or without one. Both calls fail on a directory that
/// is not empty.
fn remove_empty(path: &Path) -> bool {
    let emptied = fs::remove_dir(path.join(DATA));
    let is_gone = emptied.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true);
    is_gone && fs::remove_dir(path).is_ok()
}

/// Ends the mounts on the content of a volume, the last one first.
fn unmount(directory: &Path) -> Result<()> {
    let Ok(opened) = open_dir(directory) else { return Ok(()) };
    // A user without the right to unmount is refused before the kernel looks for a mount.
    let mount = |name: &[u8]| sys::file::mount_id(opened.as_fd(), name).ok();
    while mount(DATA.as_bytes()) != mount(b"") {
        match sys::bind::unmount_at(opened.as_fd(), DATA.as_bytes()) {
            Ok(()) => {}
            Err(error) if error.is(Errno::INVAL) || error.is(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(CatalogError::host(&directory.join(DATA))(error)),
        }
    }
    Ok(())
}

/// Removes a tree that another process may be removing too.
fn remove_tree(path: &Path) -> Result<()> {
    match sys::remove::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(CatalogError::io(path)),
    }
}
