//! The first use of a volume: it is created by its name, and filled from the image directory that
//! it covers.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::{VolumeService, parts, place, settle};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::{Locked, OpenVolume};
use crate::error::FromHost;
use crate::service::failure::Refusal;
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
        let locked = self.volumes.lock(name).map_err(Refusal::from)?;
        let (driver, spec) = parts(locked.volume())?;
        let place = place(locked.volume());
        driver.mount(&place, &spec).map_err(Refusal::from)?;
        let opened = fill_first(&locked, driver.is_private(), fill)
            .and_then(|()| Ok(locked.open().map_err(Refusal::from)?));
        if opened.is_err() {
            settle(&locked)?;
        }
        opened
    }
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
    let flags = sys::file::OFlags::RDONLY;
    let root = sys::file::open_path(data, flags).map_err(CatalogError::host(data));
    let synced =
        root.and_then(|root| sys::file::syncfs(root.as_fd()).map_err(CatalogError::host(data)));
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
    let fd = sys::file::open_path(filled, sys::file::OFlags::RDONLY)
        .map_err(CatalogError::host(filled))?;
    sys::file::syncfs(fd.as_fd()).map_err(CatalogError::host(filled))?;
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
