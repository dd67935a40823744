//! The two locks of a volume (flock(2)).
//!
//! The *state lock* (file `lock` of its directory) is held by the process that creates, mounts,
//! fills, changes or removes the volume, for as long as that takes. The *use lock* (the directory
//! itself) is held, shared, by each user of the content. A volume without users is found by taking
//! the use lock alone, under the state lock: users take theirs under it too, so that none appears
//! meanwhile. A process that is killed loses its locks.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::row::{Volume, Volumes};
use crate::catalog::error::{CatalogError, Result, User};
use crate::error::{Errno, FromHost};
use crate::store::files::open_dir;
use crate::sys;
use crate::types::VolumeName;

/// The file of the state lock.
pub(super) const LOCK: &str = "lock";

/// A volume whose state lock is held. Its record was read under the lock.
#[derive(Debug)]
pub struct Locked {
    pub(super) volume: Volume,
    pub(super) _lock: File,
}

/// A volume in use. Nobody removes or unmounts it while this lives.
#[derive(Debug)]
pub struct OpenVolume {
    data: PathBuf,
    _lock: OwnedFd,
}

impl OpenVolume {
    /// The directory of the content.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Opens the file of the state lock, which is made if it is missing. A directory without one was
/// removed, or belongs to a volume of before there were state locks.
pub(super) fn open(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(nofollow()).open(&path).map_err(CatalogError::io(&path))
}

/// Takes the state lock of a directory, if it is free and the directory is there.
pub(super) fn try_open(directory: &Path) -> Result<Option<File>> {
    if !directory.exists() {
        return Ok(None);
    }
    let lock = open(directory)?;
    match sys::file::try_flock(lock.as_fd()) {
        Ok(()) => Ok(Some(lock)),
        Err(error) if error.is(Errno::AGAIN) => Ok(None),
        Err(error) => Err(CatalogError::host(directory)(error)),
    }
}

fn nofollow() -> i32 {
    sys::file::OFlags::NOFOLLOW.bits().cast_signed()
}

impl Volumes {
    /// Takes the state lock of a volume if it is free, and reads its record under it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn try_lock(&self, name: &VolumeName) -> Result<Option<Locked>> {
        let seen = self.find(name)?;
        let Some(lock) = try_open(seen.directory())? else { return Ok(None) };
        let volume = self.find(name)?;
        Ok((volume.id == seen.id).then_some(Locked { volume, _lock: lock }))
    }

    /// Waits for the state lock of a volume, and reads its record under it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn lock(&self, name: &VolumeName) -> Result<Locked> {
        loop {
            let seen = self.find(name)?;
            let directory = seen.directory();
            let lock = match open(directory) {
                // It was removed meanwhile: look again.
                Err(_) if !directory.exists() => continue,
                opened => opened?,
            };
            sys::file::flock(lock.as_fd()).map_err(CatalogError::host(directory))?;
            let volume = self.find(name)?;
            if volume.id == seen.id {
                return Ok(Locked { volume, _lock: lock });
            }
        }
    }
}

impl Locked {
    /// The volume.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Marks the volume as used, until the value is dropped.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self) -> Result<OpenVolume> {
        let directory = self.volume.directory();
        let lock = open_dir(directory)?;
        sys::file::flock_shared(lock.as_fd()).map_err(CatalogError::host(directory))?;
        Ok(OpenVolume { data: self.volume.mountpoint.clone(), _lock: lock })
    }

    /// Whether nobody uses the volume. None can begin to while the state lock is held.
    ///
    /// # Errors
    /// As open(2).
    pub fn is_idle(&self) -> Result<bool> {
        let directory = self.volume.directory();
        let lock = open_dir(directory)?;
        match sys::file::try_flock(lock.as_fd()) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::AGAIN) => Ok(false),
            Err(error) => Err(CatalogError::host(directory)(error)),
        }
    }

    /// Refuses a volume that is in use.
    ///
    /// # Errors
    /// [`CatalogError::InUse`].
    pub fn require_idle(&self) -> Result<()> {
        if self.is_idle()? {
            return Ok(());
        }
        let name = self.volume.name.to_string();
        Err(CatalogError::InUse { kind: "volume", name, by: User::Mount })
    }
}
