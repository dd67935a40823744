//! Records of publications, and the locks of their targets.
//!
//! A record is on the disk before its mount is made, and is removed after the mount has ended. So
//! a mount at a target is ours only if its record knows it. The lock of a target is a file beside
//! the record, which is removed while it is held.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::mounts::MountEntry;
use super::Publication;
use super::error::{PublicationError, Result};
use crate::error::FromHost;
use crate::store::files;
use crate::sys;
use crate::types::Digest;

/// A publication as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) publication: Publication,
    /// The process that shows a group or a context, by its key.
    pub(super) view: Option<String>,
    /// What was mounted at the target, or is about to be.
    pub(super) shown: Vec<Shown>,
}

/// A directory or file of a file system, as the table of mounts has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    /// The start of the host: numbers of file systems do not outlive it.
    pub(super) boot: String,
    pub(super) device: String,
    pub(super) root: PathBuf,
}

impl Shown {
    /// Whether a mount shows this.
    pub(super) fn is_of(&self, mount: &MountEntry, boot: &str) -> bool {
        let root = mount.root.as_os_str().as_encoded_bytes();
        // As the kernel shows a directory that was removed.
        let root = root.strip_suffix(b"//deleted").unwrap_or(root);
        let same = root == self.root.as_os_str().as_encoded_bytes();
        self.boot == boot && self.device == mount.device && same
    }
}

/// The directory of records.
pub(super) struct Records(PathBuf);

/// A lock that is held; dropped, it is released.
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// The name of a record.
pub(super) fn key(target: &Path) -> String {
    Digest::sha256(target.as_os_str().as_encoded_bytes()).hex().to_owned()
}

impl Records {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let directory = root.join("publications");
        make_dir(&directory)?;
        Ok(Self(directory))
    }

    /// The directory of processes that show groups and contexts.
    pub(super) fn views(&self) -> PathBuf {
        self.0.join("views")
    }

    fn path(&self, target: &Path) -> PathBuf {
        self.0.join(key(target)).with_extension("json")
    }

    /// Waits for the lock of a target, and takes it.
    ///
    /// # Errors
    /// As open(2) and flock(2).
    pub(super) fn lock(&self, target: &Path) -> Result<Lock> {
        Lock::take(self.path(target).with_extension("lock"))
    }

    pub(super) fn read(&self, target: &Path) -> Result<Option<Record>> {
        read(&self.path(target))
    }

    /// Writes a record, whole or not at all. The caller holds the lock of the target.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        write(&self.path(&record.publication.target), record)
    }

    /// Removes a record. The caller holds the lock of the target.
    pub(super) fn remove(&self, target: &Path) -> Result<()> {
        let path = self.path(target);
        remove_file(&path)?;
        self.discard(target)?;
        sync(&self.0)
    }

    /// Removes what a process that was killed wrote of a record. The caller holds the lock of the
    /// target.
    pub(super) fn discard(&self, target: &Path) -> Result<()> {
        remove_file(&self.path(target).with_extension("new"))
    }

    /// All records, in no order. One that ends meanwhile may be left out.
    pub(super) fn all(&self) -> Result<Vec<Record>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(PublicationError::io(&self.0))? {
            let path = entry.map_err(PublicationError::io(&self.0))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.extend(read::<Record>(&path)?);
            }
        }
        Ok(found)
    }
}

impl Lock {
    /// Waits for a lock file, which is made, and takes its lock.
    ///
    /// # Errors
    /// As open(2) and flock(2).
    pub(super) fn take(path: PathBuf) -> Result<Self> {
        loop {
            let mut options = File::options();
            let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = opened.map_err(PublicationError::io(&path))?;
            sys::file::flock(file.as_fd()).map_err(PublicationError::host(&path))?;
            // The one that held it may have removed the file.
            let held = file.metadata().map_err(PublicationError::io(&path))?;
            if fs::metadata(&path).is_ok_and(|meta| meta.ino() == held.ino()) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Another descriptor of the open file, which holds the lock too.
    pub(super) fn share(&self) -> Result<File> {
        self.file.try_clone().map_err(PublicationError::io(&self.path))
    }

    /// Removes the lock file with the lock.
    pub(super) fn remove(self) -> Result<()> {
        remove_file(&self.path)
    }
}

/// Makes a directory that is closed to others.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    files::make_dir(path).map_err(|error| PublicationError::Record {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(PublicationError::io(path)),
    }
}

fn sync(directory: &Path) -> Result<()> {
    let opened = File::open(directory).and_then(|opened| opened.sync_all());
    opened.map_err(PublicationError::io(directory))
}

/// Reads a record; `None` without one.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(PublicationError::io(path))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| PublicationError::Record {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Writes a record through a file beside it. Only the holder of its lock calls this.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let invalid = |error: serde_json::Error| PublicationError::Invalid { what: error.to_string() };
    let text = serde_json::to_vec(record).map_err(invalid)?;
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(PublicationError::io(path))?;
    sync(path.parent().unwrap_or(path))
}
