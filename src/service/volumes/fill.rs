//! The first use of a volume: it is created by its name, and filled from the image directory that
//! it covers.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::{VolumeService, parts, place, require_files, settle};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::{Locked, OpenVolume};
use crate::error::FromHost;
use crate::service::failure::Refusal;
use crate::store::files::sync_file_system;
use crate::sys;
use crate::types::VolumeName;

/// Where a volume is filled before its content takes the place of the empty one.
const FILLING: &str = ".filling";
/// Marks a volume with a file system of its own whose filling has begun.
const PARTIAL: &str = "partial";

impl VolumeService {
    /// Mounts a volume and marks it as used. If nobody else uses it and it is empty, `fill` gets a
    /// directory that becomes its content; other users wait meanwhile, and none of them sees a
    /// part.
    ///
    /// # Errors
    /// [`Refusal`]; the error of `fill`. A crash or failure leaves the volume empty, or to be
    /// filled anew; a directory of the host or a share keeps what was put there.
    pub fn open_filled<E: From<Refusal>>(
        &self,
        name: &VolumeName,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<OpenVolume, E> {
        let prepare = |locked: &Locked, is_private| fill_first(locked, is_private, fill);
        self.open_after(name, prepare).map(|(volume, ())| volume)
    }

    /// Mounts a volume, and marks it as used after `prepare` looked at its content; other users
    /// wait meanwhile. `prepare` also gets whether nobody uses the volume yet.
    ///
    /// # Errors
    /// [`Refusal`]; the error of `prepare`. An error leaves the volume as it was.
    pub(in crate::service) fn open_prepared<T, E: From<Refusal>>(
        &self,
        name: &VolumeName,
        prepare: impl FnOnce(&Path, bool) -> Result<T, E>,
    ) -> Result<(OpenVolume, T), E> {
        self.open_after(name, |locked, _| {
            let is_idle = locked.is_idle().map_err(Refusal::from)?;
            prepare(&locked.volume().mountpoint, is_idle)
        })
    }

    fn open_after<T, E: From<Refusal>>(
        &self,
        name: &VolumeName,
        prepare: impl FnOnce(&Locked, bool) -> Result<T, E>,
    ) -> Result<(OpenVolume, T), E> {
        let locked = self.volumes.lock(name).map_err(Refusal::from)?;
        require_files(locked.volume())?;
        let (driver, spec) = parts(locked.volume())?;
        let place = place(locked.volume());
        driver.mount(&place, &spec).map_err(Refusal::from)?;
        let opened = prepare(&locked, driver.is_private(&spec))
            .and_then(|made| Ok((locked.open().map_err(Refusal::from)?, made)));
        if opened.is_err() {
            settle(&locked)?;
        }
        opened
    }
}

/// Fills a directory of a volume, if it is empty, where it is. After an error it is empty again; a
/// crash leaves a part.
pub(in crate::service) fn fill_in_place<E: From<Refusal>>(
    directory: BorrowedFd<'_>,
    fill: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    // By descriptor: its names may lead elsewhere by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}/.", directory.as_raw_fd()));
    if !is_empty(&path)? {
        return Ok(());
    }
    let filled = fill();
    match &filled {
        Ok(()) => {
            sync_file_system(&path).map_err(|error| Refusal::from(CatalogError::from(error)))?
        }
        Err(_) => empty(&path)?,
    }
    filled
}

/// Fills a volume that nobody uses and that is empty, or whose filling was interrupted.
fn fill_first<E: From<Refusal>>(
    locked: &Locked,
    is_private: bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    if !locked.is_idle().map_err(Refusal::from)? {
        return Ok(());
    }
    let (directory, data) = (locked.volume().directory(), &locked.volume().mountpoint);
    let in_place = is_mount_point(directory, data)?;
    let partial = directory.join(PARTIAL);
    if in_place && is_private && partial.exists() {
        empty(data)?;
    }
    match is_empty(data)? {
        true if in_place && is_private => fill_private(data, &partial, fill),
        // Others may write to it too: what is there stays.
        true if in_place => fill(data),
        true => fill_empty(directory, data, fill),
        false => Ok(()),
    }
}

/// Fills a file system that belongs to the volume alone. A mark beside it says so until its content
/// is whole.
fn fill_private<E: From<Refusal>>(
    data: &Path,
    partial: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    fs::write(partial, b"").map_err(wrap(partial))?;
    if let Err(error) = fill(data) {
        empty(data)?;
        fs::remove_file(partial).map_err(wrap(partial))?;
        return Err(error);
    }
    let synced = sync_file_system(data).map_err(CatalogError::from);
    synced.map_err(Refusal::from)?;
    Ok(fs::remove_file(partial).map_err(wrap(partial))?)
}

fn is_empty(data: &Path) -> Result<bool, Refusal> {
    let mut entries = fs::read_dir(data).map_err(CatalogError::io(data))?;
    Ok(entries.next().is_none())
}

/// Has the content made beside the empty one, and puts it there in one step.
fn fill_empty<E: From<Refusal>>(
    directory: &Path,
    data: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let filling = directory.join(FILLING);
    remove_tree(&filling)?;
    fs::create_dir(&filling).map_err(wrap(&filling))?;
    let filled = fill(&filling).and_then(|()| Ok(publish(&filling, data)?));
    if filled.is_err() {
        remove_tree(&filling)?;
    }
    filled
}

fn wrap(path: &Path) -> impl FnOnce(std::io::Error) -> Refusal {
    |error| CatalogError::io(path)(error).into()
}

fn is_mount_point(above: &Path, path: &Path) -> Result<bool, Refusal> {
    let mount = |path: &Path| {
        let opened = sys::file::find_directory(path);
        opened.and_then(|fd| sys::file::mount_id(fd.as_fd(), b"")).map_err(CatalogError::host(path))
    };
    Ok(mount(above)? != mount(path)?)
}

fn publish(filled: &Path, data: &Path) -> Result<(), Refusal> {
    sync_file_system(filled).map_err(CatalogError::from)?;
    fs::rename(filled, data).map_err(CatalogError::io(filled))?;
    let parent = data.parent().unwrap_or(data);
    let parent_fd = sys::file::open_path(parent, sys::file::OFlags::RDONLY)
        .map_err(CatalogError::host(parent))?;
    Ok(sys::file::fsync(parent_fd.as_fd()).map_err(CatalogError::host(parent))?)
}

fn empty(data: &Path) -> Result<(), Refusal> {
    for entry in fs::read_dir(data).map_err(CatalogError::io(data))? {
        let path = entry.map_err(CatalogError::io(data))?.path();
        if path.is_dir() && !path.is_symlink() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(CatalogError::io(&path))?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), Refusal> {
    match sys::remove::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed.map_err(CatalogError::io(path))?),
    }
}
