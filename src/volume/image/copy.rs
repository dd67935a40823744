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

use super::device::{Device, IMAGE, Image, open_root, thaw};
use super::options::MountOptions;
use super::room::SECTOR_BYTES;
use crate::error::{Errno, Error, FromHost};
use crate::sys;
use crate::sys::disk::ThawAtEnd;
use crate::sys::file::OFlags;
use crate::types::{RenameFlags, Seek};
use crate::volume::driver::{OnCopied, Place};
use crate::volume::error::{Result, VolumeError};

/// Bytes that one step of a copy through memory takes.
const STEP_BYTES: usize = 1 << 20;

/// The most bytes that the kernel copies between two reports.
const REPORT_BYTES: u64 = 16 << 20;

/// Counts the bytes of a copy, and reports them.
struct Meter<'a> {
    done: u64,
    of: u64,
    on_copied: &'a OnCopied,
}

impl Meter<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.on_copied)(self.done, self.of.max(self.done));
    }
}

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
pub(super) fn copy_frozen(image: &Image, to: &Path, on_copied: &OnCopied) -> Result<()> {
    copy_by(|copy| copy_while_frozen(image, (copy, to), on_copied), to)
}

/// As [`copy_frozen`], for an image without a file system that is ours to freeze. An attached one
/// is copied where the host shares blocks: the kernel lets no write pass meanwhile.
///
/// # Errors
/// [`VolumeError::Attached`] for an attached image elsewhere.
pub(super) fn copy_device(image: &Image, to: &Path, on_copied: &OnCopied) -> Result<()> {
    copy_attached(image, image.find_device()?.as_ref(), to, on_copied)
}

/// As [`copy_device`], for an image whose loop device is known.
pub(super) fn copy_attached(
    image: &Image,
    device: Option<&Device>,
    to: &Path,
    on_copied: &OnCopied,
) -> Result<()> {
    copy_by(|copy| copy_flushed((image, device), (copy, to), on_copied), to)
}

/// As [`copy_frozen`], for an image whose file system is frozen already. It is thawed before the
/// copy is made durable.
pub(super) fn copy_thawing(
    image: &Image,
    frozen: Option<Frozen>,
    to: &Path,
    on_copied: &OnCopied,
) -> Result<()> {
    let way = |copy: BorrowedFd<'_>| {
        let copied = copy_still(image, (copy, to), on_copied);
        drop(frozen);
        copied
    };
    copy_by(way, to)
}

/// Copies an image to a new file by a way that gets the open file.
fn copy_by(way: impl FnOnce(BorrowedFd<'_>) -> Result<()>, to: &Path) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let cwd = sys::file::CWD;
    let name = to.as_os_str().as_encoded_bytes();
    let copy = sys::file::openat_with_mode(cwd, name, flags, 0o600);
    let copy = copy.map_err(VolumeError::host(to))?;
    let copied = way(copy.as_fd())
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
    copy: impl FnOnce(&Image, &Path) -> Result<()>,
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

/// A new file, and its path.
type New<'a> = (BorrowedFd<'a>, &'a Path);

fn copy_while_frozen(image: &Image, new: New<'_>, on_copied: &OnCopied) -> Result<()> {
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
    copy_still(image, new, on_copied)
}

/// Copies an image that nobody changes meanwhile.
fn copy_still(image: &Image, (copy, to): New<'_>, on_copied: &OnCopied) -> Result<()> {
    match sys::ioctl::ficlone(copy, image.fd.as_fd()) {
        Ok(()) => Ok(()),
        Err(_) => copy_data((image.fd.as_fd(), copy), on_copied).map_err(VolumeError::host(to)),
    }
}

fn copy_flushed(
    (image, device): (&Image, Option<&Device>),
    (copy, to): New<'_>,
    on_copied: &OnCopied,
) -> Result<()> {
    if let Some(device) = device {
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
    copy_data((image.fd.as_fd(), copy), on_copied).map_err(VolumeError::host(to))
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
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    on_copied: &OnCopied,
) -> std::result::Result<(), Error> {
    let stat = sys::file::statx(from, b"")?;
    let size = stat.size;
    let of = stat.blocks.saturating_mul(SECTOR_BYTES).min(size);
    if of > 0 {
        on_copied(0, of);
    }
    let mut meter = Meter { done: 0, of, on_copied };
    sys::file::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let data = match sys::file::seek_extent(from, at, Seek::Data) {
            // The rest is a hole.
            Err(error) if error.is(Errno::NXIO) => break,
            found => found?,
        };
        let end = sys::file::seek_extent(from, data, Seek::Hole)?.min(size);
        copy_range((from, to), (data, end), &mut meter)?;
        at = end;
    }
    Ok(())
}

fn copy_range(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    (start, end): (u64, u64),
    meter: &mut Meter<'_>,
) -> std::result::Result<(), Error> {
    let mut at = start;
    while at < end {
        let len = usize::try_from((end - at).min(REPORT_BYTES)).unwrap_or(usize::MAX);
        match sys::file::copy_file_range((from, at), (to, at), len) {
            // The file became shorter.
            Ok(0) => return Err(Error::os("copy_file_range", Errno::IO)),
            Ok(copied) => {
                at += copied as u64;
                meter.add(copied as u64);
            }
            Err(error) => match error.errno() {
                Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => {
                    return copy_through_memory((from, to), (at, end), meter);
                }
                Errno::INTR => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

fn copy_through_memory(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    (start, end): (u64, u64),
    meter: &mut Meter<'_>,
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
        meter.add(read as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    type Copy = fn((BorrowedFd<'_>, BorrowedFd<'_>), &OnCopied) -> std::result::Result<(), Error>;

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
            ("memory", |files, on_copied| {
                let mut meter = Meter { done: 0, of: 64 << 20, on_copied };
                copy_through_memory(files, (0, 64 << 20), &mut meter)
            }),
        ];
        for (name, copy) in ways {
            let to = open(name);
            let reported = Arc::new(Mutex::new((0, 0)));
            let last = Arc::clone(&reported);
            let on_copied = move |done, of| *last.lock() = (done, of);
            copy((from.as_fd(), to.as_fd()), &on_copied).unwrap();
            let (done, of) = *reported.lock();
            assert!(done == of && done >= 3 << 20, "{name}: {done} of {of}");
            let bytes = std::fs::read(directory.path().join(name)).unwrap();
            assert!(bytes == std::fs::read(directory.path().join("from")).unwrap(), "{name}");
            if name == "kernel" {
                assert!(to.metadata().unwrap().blocks() * 512 < 8 << 20, "the holes are kept");
            }
        }
    }
}
