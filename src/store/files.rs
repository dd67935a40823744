//! Files and directories of a data root, written so that a crash leaves no partial object.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::{Result, StoreError};
use crate::error::FromHost;
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::hex;

/// The name of the index in the directory of a layer.
pub(super) const INDEX: &str = "index";
/// The name of the blob.
pub(super) const DATA: &str = "data";

/// The prefix of the name of a layer that is being built.
pub(super) const NEW: &str = ".new-";

/// Creates a directory and its parents, with access for the owner only.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::io(path))
}

/// Opens a directory.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    sys::file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(StoreError::host(path))
}

/// Waits until everything in the file system of a directory is on the disk.
pub(crate) fn sync_file_system(dir: &Path) -> Result<()> {
    sys::file::syncfs(open_dir(dir)?.as_fd()).map_err(StoreError::host(dir))
}

/// Writes a file so that after a crash it is there as a whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    let random = sys::process::random().map_err(StoreError::host(path))?;
    let new = parent.join(format!(".new-{}", hex::encode(&random)));
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    let written = write();
    if written.is_err() {
        drop(fs::remove_file(&new));
    }
    written.map_err(StoreError::io(path))?;
    sys::file::fsync(open_dir(parent)?.as_fd()).map_err(StoreError::host(parent))
}

/// The names in a directory, sorted, without names that begin with a dot.
pub(crate) fn listed(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into())).collect()
    };
    let mut names = read().map_err(StoreError::io(dir))?;
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// Removes the directory of a layer that was given up.
pub(super) fn discard(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, dir = %dir.display(), "a layer that was given up stays");
    }
}
