//! The two locks of a volume (flock(2)).
//!
//! The *state lock* (file `volumes/.locks/ID`) is held by the process that creates, mounts, fills,
//! changes or removes the volume, for as long as that takes. It outlives the directory of the
//! volume, and only its holder removes it. The *use lock* (the directory itself) is held, shared,
//! by each user of the content. A volume without users is found by taking
//! the use lock alone, under the state lock: users take theirs under it too, so that none appears
//! meanwhile. A process that is killed loses its locks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::row::{Volume, Volumes};
use crate::catalog::error::{CatalogError, Result, User};
use crate::error::{Errno, FromHost};
use crate::store::files::{listed, make_dir, open_dir};
use crate::sys;
use crate::types::VolumeName;

/// The directory with the files of the state locks, one for each id.
const LOCKS: &str = ".locks";

/// How long a volume may be in use by a program that a process is starting: until that runs, it has
/// all open files of the process that starts it, and the locks of these.
const STARTING: Duration = Duration::from_millis(500);
/// Between two looks at such a volume.
const PAUSE: Duration = Duration::from_millis(10);

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

/// Opens a file of a lock, which is made if it is missing.
fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let nofollow = sys::file::OFlags::NOFOLLOW.bits().cast_signed();
    options.custom_flags(nofollow).open(path).map_err(CatalogError::io(path))
}

/// Whether the file of a lock is still there: its last holder removes it with the volume.
fn is_there(lock: &File, path: &Path) -> Result<bool> {
    Ok(lock.metadata().map_err(CatalogError::io(path))?.nlink() > 0)
}

impl Volumes {
    fn lock_path(&self, id: &str) -> PathBuf {
        self.dir.join(LOCKS).join(id)
    }

    /// Waits for the state lock of an id.
    pub(super) fn lock_id(&self, id: &str) -> Result<File> {
        let path = self.lock_path(id);
        make_dir(&self.dir.join(LOCKS))?;
        loop {
            let lock = open(&path)?;
            sys::file::flock(lock.as_fd()).map_err(CatalogError::host(&path))?;
            if is_there(&lock, &path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the state lock of an id, if it is free.
    pub(super) fn try_lock_id(&self, id: &str) -> Result<Option<File>> {
        let path = self.lock_path(id);
        make_dir(&self.dir.join(LOCKS))?;
        loop {
            let lock = open(&path)?;
            match sys::file::try_flock(lock.as_fd()) {
                Ok(()) if is_there(&lock, &path)? => return Ok(Some(lock)),
                Ok(()) => {}
                Err(error) if error.is(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(CatalogError::host(&path)(error)),
            }
        }
    }

    /// Removes the file of the state lock of a volume that is gone. The caller holds it: those who
    /// wait for it find it gone, and the volume too.
    pub(super) fn remove_lock(&self, id: &str) -> Result<()> {
        let path = self.lock_path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(CatalogError::io(&path)),
        }
    }

    /// The ids that have a file of a lock.
    pub(super) fn locked_ids(&self) -> Result<Vec<String>> {
        let locks = self.dir.join(LOCKS);
        if locks.exists() { Ok(listed(&locks)?) } else { Ok(Vec::new()) }
    }

    /// Takes the state lock of a volume if it is free, and reads its record under it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn try_lock(&self, name: &VolumeName) -> Result<Option<Locked>> {
        let seen = self.find(name)?;
        let Some(lock) = self.try_lock_id(&seen.id)? else { return Ok(None) };
        let volume = self.find(name)?;
        Ok((volume.id == seen.id).then_some(Locked { volume, _lock: lock }))
    }

    /// Waits for the state lock of a volume, and reads its record under it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn lock(&self, name: &VolumeName) -> Result<Locked> {
        self.lock_found(|| self.find(name))
    }

    /// Waits for the state lock of what `find` finds, and finds it again under the lock.
    pub(super) fn lock_found(&self, find: impl Fn() -> Result<Volume>) -> Result<Locked> {
        loop {
            let seen = find()?;
            let lock = self.lock_id(&seen.id)?;
            let volume = find()?;
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
        // Somebody removed it by hand.
        if !directory.exists() {
            return Ok(true);
        }
        let lock = open_dir(directory)?;
        match sys::file::try_flock(lock.as_fd()) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::AGAIN) => Ok(false),
            Err(error) => Err(CatalogError::host(directory)(error)),
        }
    }

    /// Refuses a volume that is in use, also after a moment.
    ///
    /// # Errors
    /// [`CatalogError::InUse`].
    pub fn require_idle(&self) -> Result<()> {
        let deadline = Instant::now() + STARTING;
        loop {
            if self.is_idle()? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let name = self.volume.name.to_string();
        Err(CatalogError::InUse { kind: "volume", name, by: User::Mount })
    }
}
