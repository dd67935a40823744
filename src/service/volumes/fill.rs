//! The first use of a volume: it is created by its name, and filled from the image directory that
//! it covers.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::{VolumeService, parts, place};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::OpenVolume;
use crate::error::FromHost;
use crate::service::failure::Refusal;
use crate::sys;
use crate::types::VolumeName;

/// Where a volume is filled before its content takes the place of the empty one.
const FILLING: &str = ".filling";

impl VolumeService {
    /// Mounts a volume and marks it as used. If nobody else uses it and it is empty, `fill` gets a
    /// directory that becomes its content; other users wait meanwhile, and none of them sees a
    /// part.
    ///
    /// # Errors
    /// [`Refusal`]; the error of `fill`. A crash or failure leaves the volume empty.
    pub fn open_filled<E: From<Refusal>>(
        &self,
        name: &VolumeName,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<OpenVolume, E> {
        let locked = self.volumes.lock(name).map_err(Refusal::from)?;
        let (driver, spec) = parts(locked.volume())?;
        let place = place(locked.volume());
        driver.mount(&place, &spec).map_err(Refusal::from)?;
        if locked.is_idle().map_err(Refusal::from)? && is_empty(&place.data())? {
            fill_empty(place.directory(), &place.data(), fill)?;
        }
        Ok(locked.open().map_err(Refusal::from)?)
    }
}

fn is_empty(data: &Path) -> Result<bool, Refusal> {
    let mut entries = fs::read_dir(data).map_err(CatalogError::io(data))?;
    Ok(entries.next().is_none())
}

/// Has the content made beside the empty one, and puts it there in one step. A file system that is
/// mounted on the content is filled in place, and emptied again after a failure.
fn fill_empty<E: From<Refusal>>(
    directory: &Path,
    data: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    if is_mount_point(directory, data)? {
        let filled = fill(data);
        if filled.is_err() {
            empty(data)?;
        }
        return filled;
    }
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
