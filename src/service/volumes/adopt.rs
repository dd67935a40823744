//! Adoption: a directory of the host becomes the content of a volume, without a copy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{NewVolume, Volume, VolumeService};
use crate::catalog::error::CatalogError;
use crate::error::{Errno, FromHost};
use crate::service::failure::Refusal;
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::RenameFlags;
use crate::types::VolumeName;
use crate::volume::VolumeError;

/// The name of the content in the directory of a volume.
const DATA: &[u8] = b"_data";

/// A directory of the host: the directory that holds it, its name there, and itself.
struct Source {
    path: PathBuf,
    parent: OwnedFd,
    opened: OwnedFd,
}

impl VolumeService {
    /// Makes a volume of the driver `local` whose content is a directory of the host, which moves
    /// into the data root. Processes that have files of it open keep them.
    ///
    /// # Errors
    /// [`CatalogError::Exists`]; [`VolumeError::Unsupported`] for a directory on another file
    /// system, and for a mount point. A crash leaves the directory where it was, or in the volume;
    /// so does an error, where the volume may be in the trash then.
    pub fn adopt(&self, name: &VolumeName, directory: &Path) -> Result<Volume, Refusal> {
        let source = Source::open(directory)?;
        let (volume, is_new) = self.ensure(NewVolume::new(name.clone()))?;
        if !is_new {
            let (kind, name) = ("volume", name.to_string());
            return Err(CatalogError::Exists { kind, name }.into());
        }
        let moved = self.take_content(name, &volume, &source);
        if moved.is_err() {
            self.erase_made(&volume)?;
        }
        moved.map(|()| volume)
    }

    /// Replaces the empty content of a volume that nobody uses by the directory, in one step.
    fn take_content(
        &self,
        name: &VolumeName,
        volume: &Volume,
        source: &Source,
    ) -> Result<(), Refusal> {
        let locked = self.volumes.lock(name)?;
        locked.require_idle()?;
        let place = volume.directory();
        let wrap = |path: &Path| CatalogError::host(path);
        let target = sys::file::open_path(place, OFlags::RDONLY | OFlags::DIRECTORY);
        let target = target.map_err(wrap(place))?;
        let from = (source.parent.as_fd(), source.name());
        let to = (target.as_fd(), DATA);
        match sys::dir::renameat2(from, to, RenameFlags::default()) {
            Err(error) if error.is(Errno::XDEV) || error.is(Errno::BUSY) => {
                return Err(elsewhere(&source.path).into());
            }
            renamed => renamed.map_err(wrap(&source.path))?,
        }
        // The name may have led to another object since it was opened.
        if !is_same(target.as_fd(), DATA, source.opened.as_fd()).map_err(wrap(place))? {
            let back = RenameFlags { noreplace: true, ..RenameFlags::default() };
            sys::dir::renameat2(to, from, back).map_err(wrap(&source.path))?;
            sys::dir::mkdirat(target.as_fd(), DATA, 0o755).map_err(wrap(place))?;
            let stale = crate::error::Error::os("renameat2", Errno::STALE);
            return Err(wrap(&source.path)(stale).into());
        }
        sys::file::fsync(target.as_fd()).map_err(wrap(place))?;
        let parent = sys::file::open_again(source.parent.as_fd(), OFlags::RDONLY);
        let parent = parent.map_err(wrap(&source.path))?;
        Ok(sys::file::fsync(parent.as_fd()).map_err(wrap(&source.path))?)
    }
}

impl Source {
    fn open(directory: &Path) -> Result<Self, Refusal> {
        let path = std::fs::canonicalize(directory).map_err(CatalogError::io(directory))?;
        let parent = path.parent().ok_or_else(|| elsewhere(&path))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let parent_fd = sys::file::open_path(parent, flags).map_err(CatalogError::host(parent))?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let opened = sys::file::openat(parent_fd.as_fd(), name, flags);
        let opened = opened.map_err(CatalogError::host(&path))?;
        Ok(Self { parent: parent_fd, opened, path })
    }

    fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_bytes()
    }
}

fn is_same(dir: BorrowedFd<'_>, name: &[u8], other: BorrowedFd<'_>) -> crate::error::Result<bool> {
    let (found, other) = (sys::file::statx(dir, name)?, sys::file::statx(other, b"")?);
    Ok((found.dev, found.ino) == (other.dev, other.ino))
}

fn elsewhere(path: &Path) -> VolumeError {
    let path = path.display();
    VolumeError::Unsupported {
        driver: "local",
        verb: "adopt",
        reason: format!(
            "{path} is a mount point or on another file system than the data root; use it where \
             it is: lamina volume create NAME --opt type=none --opt o=bind --opt device={path}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BadObjectName;

    fn name(text: &str) -> Result<VolumeName, BadObjectName> {
        text.parse()
    }

    #[test]
    fn a_directory_becomes_a_volume_without_a_copy() {
        use std::os::unix::fs::MetadataExt;
        let site = tempfile::tempdir().unwrap();
        let service = VolumeService::open(&site.path().join("root")).unwrap();
        let dir = site.path().join("existing");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("f"), "kept").unwrap();
        let ino = std::fs::metadata(dir.join("f")).unwrap().ino();
        let made = service.adopt(&name("data").unwrap(), &dir).unwrap();
        assert!(!dir.exists());
        assert_eq!(std::fs::metadata(made.mountpoint.join("f")).unwrap().ino(), ino);
        let again = site.path().join("again");
        std::fs::create_dir(&again).unwrap();
        assert!(service.adopt(&name("data").unwrap(), &again).is_err());
        assert!(again.exists(), "what is not adopted stays");
    }

    #[test]
    fn a_directory_elsewhere_stays_and_no_volume_is_made() {
        let site = tempfile::tempdir().unwrap();
        let service = VolumeService::open(&site.path().join("root")).unwrap();
        let refused = service.adopt(&name("data").unwrap(), Path::new("/proc/self"));
        assert!(refused.is_err());
        assert!(service.list().unwrap().is_empty());
    }
}
