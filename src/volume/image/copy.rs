//! Copies of an image, also while the volume is in use.
//!
//! A mounted file system is frozen for the time of the copy: it writes all that it holds to the
//! image, and its users wait with changes. Where the host shares blocks between files (FICLONE on
//! XFS, Btrfs) that takes milliseconds, elsewhere as long as a copy of the data.
//!
//! If the process is killed meanwhile, a child of it thaws the file system. Without that child too,
//! the next mount, unmount or resize of the volume does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::device::{IMAGE, Image, open_root, thaw};
use super::options::MountOptions;
use crate::error::{Errno, Error, FromHost};
use crate::sys;
use crate::sys::disk::ThawAtEnd;
use crate::sys::file::OFlags;
use crate::types::{RenameFlags, Seek};
use crate::volume::driver::Place;
use crate::volume::error::{Result, VolumeError};

/// Bytes that one step of a copy through memory takes.
const STEP_BYTES: usize = 1 << 20;

/// A frozen file system, thawed at the end.
pub(super) struct Frozen {
    root: OwnedFd,
    path: PathBuf,
    _guard: ThawAtEnd,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = thaw(self.root.as_fd(), &self.path) {
            tracing::error!(%error, "the file system of a volume stays frozen");
        }
    }
}

/// Copies an image to a new file, of mode 0600, as it is at one moment. An error leaves no file; a
/// crash leaves one that is not whole, which the caller removes.
pub(super) fn copy_frozen(image: &Image, to: &Path) -> Result<()> {
    copy_by(copy_while_frozen, image, to)
}

/// As [`copy_frozen`], for an image without a file system that is ours to freeze. An attached one
/// is copied where the host shares blocks: the kernel lets no write pass meanwhile.
///
/// # Errors
/// [`VolumeError::Attached`] for an attached image elsewhere.
pub(super) fn copy_device(image: &Image, to: &Path) -> Result<()> {
    copy_by(copy_while_attached, image, to)
}

/// As [`copy_frozen`], for an image whose file system is frozen already. It is thawed before the
/// copy is made durable.
pub(super) fn copy_thawing(image: &Image, frozen: Option<Frozen>, to: &Path) -> Result<()> {
    let way = |image: &Image, copy: BorrowedFd<'_>, to: &Path| {
        let copied = copy_still(image, copy, to);
        drop(frozen);
        copied
    };
    copy_by(way, image, to)
}

/// Copies an image to a new file by a way that gets the open file and its path.
fn copy_by(
    way: impl FnOnce(&Image, BorrowedFd<'_>, &Path) -> Result<()>,
    image: &Image,
    to: &Path,
) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let cwd = sys::file::CWD;
    let name = to.as_os_str().as_encoded_bytes();
    let copy = sys::file::openat_with_mode(cwd, name, flags, 0o600);
    let copy = copy.map_err(VolumeError::host(to))?;
    let copied = way(image, copy.as_fd(), to)
        .and_then(|()| sys::file::fsync(copy.as_fd()).map_err(VolumeError::host(to)));
    if copied.is_err() {
        sys::dir::unlinkat(cwd, name).map_err(VolumeError::host(to))?;
    }
    copied
}

/// The file in which a copy grows before it replaces the image of a volume.
const REPLACING: &str = "image.replacing";

/// Replaces the image of a volume by a copy that `copy` makes of another one. A crash leaves the
/// old image or the new one.
///
/// # Errors
/// [`VolumeError::Busy`] if the image is attached.
pub(super) fn replace(
    place: &Place,
    from: &Image,
    copy: fn(&Image, &Path) -> Result<()>,
) -> Result<()> {
    let old = Image::open(place)?;
    if old.find_device()?.is_some() {
        return Err(VolumeError::Busy { path: place.data() });
    }
    let path = place.directory().join(REPLACING);
    match sys::dir::unlinkat(old.directory.as_fd(), REPLACING.as_bytes()) {
        // A crash left it.
        Err(error) if error.is(Errno::NOENT) => {}
        removed => removed.map_err(VolumeError::host(&path))?,
    }
    copy(from, &path)?;
    let directory = old.directory.as_fd();
    let (new, name) = ((directory, REPLACING.as_bytes()), (directory, IMAGE.as_bytes()));
    sys::dir::renameat2(new, name, RenameFlags::default()).map_err(VolumeError::host(&path))?;
    sys::file::fsync(directory).map_err(VolumeError::host(place.directory()))
}

fn copy_while_frozen(image: &Image, copy: BorrowedFd<'_>, to: &Path) -> Result<()> {
    // An image that is not attached is in use by nobody.
    let device = image.find_device()?;
    let mount = match &device {
        Some(device) => Some(image.mount_detached(device, &MountOptions::default())?),
        None => None,
    };
    let _frozen = match &mount {
        Some(mount) => Some(freeze(open_root(mount, &image.path)?, &image.path)?),
        None => None,
    };
    copy_still(image, copy, to)
}

/// Copies an image that nobody changes meanwhile.
fn copy_still(image: &Image, copy: BorrowedFd<'_>, to: &Path) -> Result<()> {
    match sys::ioctl::ficlone(copy, image.fd.as_fd()) {
        Ok(()) => Ok(()),
        Err(_) => copy_data(image.fd.as_fd(), copy).map_err(VolumeError::host(to)),
    }
}

fn copy_while_attached(image: &Image, copy: BorrowedFd<'_>, to: &Path) -> Result<()> {
    let device = image.find_device()?;
    if let Some(device) = &device {
        // What its users wrote and did not sync is in the cache of the device.
        device.flush()?;
    }
    let error = match sys::ioctl::ficlone(copy, image.fd.as_fd()) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.errno() {
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV => {}
        _ => return Err(VolumeError::host(to)(error)),
    }
    if device.is_some() {
        let reason = "the file system of the data root shares no blocks between files, so the copy \
                      would not be of one moment; end the users of the volume first, or use a data \
                      root on XFS or Btrfs";
        let (path, reason) = (image.path.clone(), reason.to_owned());
        return Err(VolumeError::Attached { path, reason });
    }
    copy_data(image.fd.as_fd(), copy).map_err(VolumeError::host(to))
}

/// Freezes the file system with this root, of the image at a path.
pub(super) fn freeze(root: OwnedFd, path: &Path) -> Result<Frozen> {
    // A crash left it frozen, and what was written since waits: it belongs into the copy.
    thaw(root.as_fd(), path)?;
    let guard = sys::disk::thaw_at_end(root.as_fd()).map_err(VolumeError::host(path))?;
    sys::disk::freeze(root.as_fd()).map_err(VolumeError::host(path))?;
    Ok(Frozen { root, path: path.to_owned(), _guard: guard })
}

/// Copies the data of a file to an empty one and leaves the holes out.
pub(super) fn copy_data(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
) -> std::result::Result<(), Error> {
    let size = sys::file::statx(from, b"")?.size;
    sys::file::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let data = match sys::file::seek_extent(from, at, Seek::Data) {
            // The rest is a hole.
            Err(error) if error.is(Errno::NXIO) => break,
            found => found?,
        };
        let end = sys::file::seek_extent(from, data, Seek::Hole)?.min(size);
        copy_range(from, to, data, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> std::result::Result<(), Error> {
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX);
        match sys::file::copy_file_range((from, at), (to, at), len) {
            // The file became shorter.
            Ok(0) => return Err(Error::os("copy_file_range", Errno::IO)),
            Ok(copied) => at += copied as u64,
            Err(error) => match error.errno() {
                Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => {
                    return copy_through_memory(from, to, at, end);
                }
                Errno::INTR => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

fn copy_through_memory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> std::result::Result<(), Error> {
    let mut buffer = vec![0; STEP_BYTES];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).map_or(STEP_BYTES, |rest| rest.min(STEP_BYTES));
        let read = sys::file::pread(from, buffer.get_mut(..len).unwrap_or_default(), at)?;
        if read == 0 {
            return Err(Error::os("pread", Errno::IO));
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = sys::file::pwrite(to, rest, at)?;
            rest = rest.get(written..).unwrap_or_default();
            at += written as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    type Copy = fn(BorrowedFd<'_>, BorrowedFd<'_>) -> std::result::Result<(), Error>;

    #[test]
    fn a_copy_has_the_data_and_the_holes() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = directory.path().join(name);
            std::fs::File::options().create_new(true).read(true).write(true).open(path).unwrap()
        };
        let from = open("from");
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(&vec![7; 3 << 20], 20 << 20).unwrap();
        from.write_all_at(b"end", (40 << 20) + 5).unwrap();
        let ways: [(&str, Copy); 2] = [
            ("kernel", copy_data),
            ("memory", |from, to| copy_through_memory(from, to, 0, 64 << 20)),
        ];
        for (name, copy) in ways {
            let to = open(name);
            copy(from.as_fd(), to.as_fd()).unwrap();
            let bytes = std::fs::read(directory.path().join(name)).unwrap();
            assert!(bytes == std::fs::read(directory.path().join("from")).unwrap(), "{name}");
            if name == "kernel" {
                assert!(to.metadata().unwrap().blocks() * 512 < 8 << 20, "the holes are kept");
            }
        }
    }
}
