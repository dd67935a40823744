//! Adoption: a directory of the host becomes the content of a volume, without a copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{NewVolume, Volume, VolumeService};
use crate::catalog::error::CatalogError;
use crate::error::{Errno, Error, FromHost};
use crate::service::failure::Refusal;
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Kind, RenameFlags, VolumeName};
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
        self.adopt_labelled(name, directory, BTreeMap::new())
    }

    /// As [`VolumeService::adopt`]; the volume has labels from the beginning.
    ///
    /// # Errors
    /// As [`VolumeService::adopt`].
    pub fn adopt_labelled(
        &self,
        name: &VolumeName,
        directory: &Path,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume, Refusal> {
        let source = Source::open(directory)?;
        let (volume, is_new) = self.ensure(NewVolume { labels, ..NewVolume::new(name.clone()) })?;
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
        if locked.volume().id != volume.id {
            let (kind, name) = ("volume", name.to_string());
            return Err(CatalogError::Changed { kind, name }.into());
        }
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
        // The name may have led to another directory since it was opened. (Nothing but a directory
        // replaces the empty one.)
        if !is_same(target.as_fd(), DATA, source.opened.as_fd()).map_err(wrap(place))? {
            let back = RenameFlags { noreplace: true, ..RenameFlags::default() };
            sys::dir::renameat2(to, from, back).map_err(wrap(&source.path))?;
            sys::dir::mkdirat(target.as_fd(), DATA, 0o755).map_err(wrap(place))?;
            let stale = Error::os("renameat2", Errno::STALE);
            return Err(wrap(&source.path)(stale).into());
        }
        sys::file::fsync(target.as_fd()).map_err(wrap(place))?;
        let parent = sys::file::open_again(source.parent.as_fd(), OFlags::RDONLY);
        let parent = parent.map_err(wrap(&source.path))?;
        Ok(sys::file::fsync(parent.as_fd()).map_err(wrap(&source.path))?)
    }
}

impl Source {
    /// Opens a directory, once: what holds it is found from there, and no link in its place is
    /// followed.
    fn open(directory: &Path) -> Result<Self, Refusal> {
        let wrap = |error| CatalogError::host(directory)(error);
        // Without a slash at the end, which would follow the link.
        let plain: PathBuf = directory.components().collect();
        let opened = sys::file::open_path(&plain, OFlags::PATH | OFlags::NOFOLLOW).map_err(wrap)?;
        if sys::file::statx(opened.as_fd(), b"").map_err(wrap)?.kind() == Kind::Symlink {
            return Err(link(directory).into());
        }
        let up = OFlags::PATH | OFlags::DIRECTORY;
        let parent = sys::file::openat(opened.as_fd(), b"..", up).map_err(wrap)?;
        let path = sys::file::path_of(opened.as_fd()).map_err(wrap)?;
        let source = Self { parent, opened, path: PathBuf::from(OsString::from_vec(path)) };
        if source.name().is_empty() {
            return Err(elsewhere(&source.path).into());
        }
        let (parent, object) = (source.parent.as_fd(), source.opened.as_fd());
        match is_same(parent, source.name(), object) {
            Ok(true) => Ok(source),
            Ok(false) => Err(wrap(Error::os("open", Errno::STALE)).into()),
            Err(error) => Err(wrap(error).into()),
        }
    }

    fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_bytes()
    }
}

fn is_same(dir: BorrowedFd<'_>, name: &[u8], other: BorrowedFd<'_>) -> crate::error::Result<bool> {
    let (found, other) = (sys::file::statx(dir, name)?, sys::file::statx(other, b"")?);
    Ok((found.dev, found.ino) == (other.dev, other.ino))
}

fn link(path: &Path) -> VolumeError {
    let path = path.display();
    VolumeError::Unsupported {
        driver: "local",
        verb: "adopt",
        reason: format!(
            "{path} is a symbolic link; name the directory itself: lamina volume adopt \
             $(realpath {path})"
        ),
    }
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
        let refused = service.adopt(&name("data").unwrap(), Path::new("/proc/sys"));
        assert!(refused.is_err());
        assert!(service.list().unwrap().is_empty());
    }
}
