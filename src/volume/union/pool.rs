//! The layers of all volumes of a data root: `volumes/.layers/ID`, each with its content in `diff`
//! and, while it is an upper, its work directory in `work`.
//!
//! A layer lives while a stack names it. Whoever makes a layer, or copies the name of one to
//! another stack, shares the lock of the pool until the stack is written; whoever removes layers
//! holds it alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::error::{Result, VolumeError};
use super::stack;
use crate::error::FromHost;
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::hex;

/// The directory of the pool, beside the volumes.
const POOL: &str = ".layers";
const LOCK: &str = ".lock";

/// The layers of a data root.
#[derive(Debug, Clone)]
pub struct Pool {
    directory: PathBuf,
}

/// While this lives, no layer is removed.
#[derive(Debug)]
pub struct Shared(#[allow(dead_code)] File);

impl Pool {
    /// The pool beside the directory of a volume.
    #[must_use]
    pub fn of(volume: &Path) -> Self {
        Self::beside(volume.parent().unwrap_or(volume))
    }

    /// The pool in the directory of all volumes.
    #[must_use]
    pub fn beside(volumes: &Path) -> Self {
        Self { directory: volumes.join(POOL) }
    }

    /// The content of a layer.
    #[must_use]
    pub fn content(&self, layer: &str) -> PathBuf {
        self.directory.join(layer).join("diff")
    }

    /// The work directory of an upper.
    #[must_use]
    pub fn work(&self, layer: &str) -> PathBuf {
        self.directory.join(layer).join("work")
    }

    fn lock(&self) -> Result<File> {
        let path = self.directory.join(LOCK);
        let mut made = fs::DirBuilder::new();
        made.recursive(true).mode(0o700).create(&self.directory).map_err(VolumeError::io(&path))?;
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        opened.map_err(VolumeError::io(&path))
    }

    /// Keeps all layers until the value is dropped.
    ///
    /// # Errors
    /// As open(2).
    pub fn share(&self) -> Result<Shared> {
        let lock = self.lock()?;
        sys::file::flock_shared(lock.as_fd()).map_err(VolumeError::host(&self.directory))?;
        Ok(Shared(lock))
    }

    /// Makes an empty layer, and returns its id. The caller shares the lock.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn make(&self) -> Result<String> {
        let random = sys::process::random().map_err(VolumeError::host(&self.directory))?;
        let id: String = hex::encode(&random).chars().take(32).collect();
        let directory = self.directory.join(&id);
        let dir = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).map_err(VolumeError::io(path))
        };
        dir(&directory, 0o700)?;
        dir(&self.content(&id), 0o755)?;
        // Whatever the umask is: users see this mode.
        let shown = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.content(&id), shown).map_err(VolumeError::io(&directory))?;
        dir(&self.work(&id), 0o700)?;
        sync_dir(&directory)?;
        sync_dir(&self.directory)?;
        Ok(id)
    }

    /// Waits until the content of all layers is on disk.
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync(&self) -> Result<()> {
        let opened = sys::file::open_path(&self.directory, OFlags::RDONLY | OFlags::DIRECTORY);
        let synced = opened.and_then(|directory| sys::file::syncfs(directory.as_fd()));
        synced.map_err(VolumeError::host(&self.directory))
    }

    /// Removes a layer that no stack names.
    pub fn discard(&self, layer: &str) {
        if let Err(error) = sys::remove::remove_dir_all(&self.directory.join(layer)) {
            tracing::debug!(%error, layer, "a layer stays until the next collection");
        }
    }

    /// Removes the layers that no stack names, and returns how many there were.
    ///
    /// # Errors
    /// Errors of reading a stack: then nothing is removed.
    pub fn collect(&self) -> Result<usize> {
        if !self.directory.exists() {
            return Ok(0);
        }
        let lock = self.lock()?;
        sys::file::flock(lock.as_fd()).map_err(VolumeError::host(&self.directory))?;
        let volumes = self.directory.parent().unwrap_or(&self.directory);
        let mut named = HashSet::new();
        for volume in entries(volumes)? {
            match stack::read(&volume) {
                Ok(stack) => named.extend(stack.upper.into_iter().chain(stack.layers)),
                // Not a volume, or one of another driver.
                Err(VolumeError::Host(error)) if is_missing(&error.source) => {}
                Err(error) => return Err(error),
            }
        }
        let mut removed = 0;
        for layer in entries(&self.directory)? {
            let name = layer.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == LOCK || named.contains(&name) {
                continue;
            }
            match sys::remove::remove_dir_all(&layer) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(VolumeError::io(&layer)(error));
                }
                _ => removed += 1,
            }
        }
        Ok(removed)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    read().map_err(VolumeError::io(dir))
}

fn sync_dir(path: &Path) -> Result<()> {
    let opened = sys::file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY);
    opened.and_then(|dir| sys::file::fsync(dir.as_fd())).map_err(VolumeError::host(path))
}

#[cfg(test)]
mod tests {
    use super::stack::Stack;
    use super::*;

    #[test]
    fn a_layer_lives_while_a_stack_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::beside(dir.path());
        assert_eq!(pool.collect().unwrap(), 0);
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        let shared = pool.share().unwrap();
        let (kept, lost) = (pool.make().unwrap(), pool.make().unwrap());
        stack::write(&volume, &Stack { upper: None, layers: vec![kept.clone()] }).unwrap();
        drop(shared);
        assert_eq!(pool.collect().unwrap(), 1);
        assert!(pool.content(&kept).is_dir() && !pool.content(&lost).exists());
        fs::write(volume.join("stack.json"), "{").unwrap();
        pool.collect().unwrap_err();
        assert!(pool.content(&kept).is_dir(), "a damaged stack must remove nothing");
    }
}
