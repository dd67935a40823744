//! The image of a volume, the loop device that it is attached to, and mounts of it.
//!
//! An image is attached once: two loop devices over one file have two caches and destroy the file
//! system. So a device is first looked for among all of the host, whichever process attached it. A
//! device that this driver attaches is detached by the kernel with its last user, also after a
//! crash.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::options::{BLOCK_BYTES, Kind, MountOptions, Parameter};
use super::refusal::{busy, refused_option};
use crate::error::{Errno, FromHost};
use crate::sys::file::OFlags;
use crate::sys::{self, context, loops};
use crate::types::Stat;
use crate::volume::driver::{Attached, Place};
use crate::volume::error::{Result, VolumeError};

/// The name of the image in the directory of its volume.
pub(super) const IMAGE: &str = "image";
/// Where the content appears, as [`Place::data`].
const DATA: &[u8] = b"_data";
/// How often a free loop device may be taken by another process before this one attaches.
const ATTACH_TRIES: usize = 64;

/// The image of a volume, open for writing.
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) directory: OwnedFd,
}

/// A loop device that backs an image, and that stays attached as long as this lives.
pub(super) struct Device {
    path: PathBuf,
    fd: OwnedFd,
    /// Its device number, which the file system on it has too.
    number: u64,
}

pub(super) fn open_directory(place: &Place) -> Result<OwnedFd> {
    let path = place.directory();
    sys::file::open_path(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(VolumeError::host(path))
}

impl Image {
    pub(super) fn open(place: &Place) -> Result<Self> {
        Self::with(place, IMAGE, OFlags::empty())
    }

    /// Creates a file beside the image, or the image itself; it must not exist.
    pub(super) fn create(place: &Place, name: &str) -> Result<Self> {
        Self::with(place, name, OFlags::CREATE | OFlags::EXCL)
    }

    fn with(place: &Place, name: &str, more: OFlags) -> Result<Self> {
        let directory = open_directory(place)?;
        let path = std::path::absolute(place.directory().join(name))
            .map_err(VolumeError::io(place.directory()))?;
        let flags = OFlags::RDWR | more;
        let fd = sys::file::openat_with_mode(directory.as_fd(), name.as_bytes(), flags, 0o600);
        let fd = fd.map_err(VolumeError::host(&path))?;
        Ok(Self { path, fd, directory })
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        sys::file::statx(self.fd.as_fd(), b"").map_err(VolumeError::host(&self.path))
    }

    pub(super) fn set_len(&self, bytes: u64) -> Result<()> {
        let failed = VolumeError::host(&self.path);
        sys::file::ftruncate(self.fd.as_fd(), bytes).map_err(&failed)?;
        sys::file::fsync(self.fd.as_fd()).map_err(&failed)
    }

    pub(super) fn sync(&self) -> Result<()> {
        sys::file::fsync(self.fd.as_fd()).map_err(VolumeError::host(&self.path))
    }

    /// Returns the type of the file system in the image, by its magic number.
    pub(super) fn kind(&self) -> Result<Kind> {
        let mut head = [0; 2048];
        let mut len = 0;
        while let Some(rest) = head.get_mut(len..).filter(|rest| !rest.is_empty()) {
            let read = sys::file::pread(self.fd.as_fd(), rest, len as u64);
            match read.map_err(VolumeError::host(&self.path))? {
                0 => break,
                read => len += read,
            }
        }
        // `s_magic` of `struct ext4_super_block`, `sb_magicnum` of `struct xfs_dsb`.
        if head.get(1080..1082) == Some(&[0x53, 0xEF]) {
            Ok(Kind::Ext4)
        } else if head.starts_with(b"XFSB") {
            Ok(Kind::Xfs)
        } else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "no file system in the image");
            Err(VolumeError::io(&self.path)(error))
        }
    }

    /// The blocks of the ext4 file system in an image that is not attached.
    pub(super) fn ext4_blocks(&self) -> Result<u64> {
        ext4_blocks(self.fd.as_fd(), &self.path)
    }

    /// Finds the loop device that the image is attached to.
    pub(super) fn find_device(&self) -> Result<Option<Device>> {
        let stat = self.stat()?;
        let devices = Path::new("/sys/block");
        for entry in fs::read_dir(devices).map_err(VolumeError::io(devices))? {
            let entry = entry.map_err(VolumeError::io(devices))?;
            // Present only while the device is attached.
            let is_attached = || entry.path().join("loop/backing_file").exists();
            if !entry.file_name().as_encoded_bytes().starts_with(b"loop") || !is_attached() {
                continue;
            }
            let path = Path::new("/dev").join(entry.file_name());
            match Device::open(path) {
                Ok(device) if device.backs(&stat)? => return Ok(Some(device)),
                Ok(_) => {}
                // It was removed meanwhile, or its file was detached.
                Err((_, Errno::NOENT | Errno::NXIO)) => {}
                // One that this process may not open is not one that it attached.
                Err((error, Errno::BUSY | Errno::ACCESS | Errno::PERM)) => {
                    tracing::debug!(%error, "skipped");
                }
                Err((error, _)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the loop device that the image is attached to, attaching it to a free one if there
    /// is none.
    pub(super) fn attach(&self) -> Result<Device> {
        self.attach_with(BLOCK_BYTES as u32)
    }

    /// As [`Image::attach`], with sectors of this size for a new device.
    pub(super) fn attach_with(&self, sector_bytes: u32) -> Result<Device> {
        if let Some(device) = self.find_device()? {
            device.adopt_size()?;
            return Ok(device);
        }
        let path = Path::new("/dev/loop-control");
        let control = sys::file::open_path(path, OFlags::RDWR).map_err(VolumeError::host(path))?;
        for _ in 0..ATTACH_TRIES {
            let number = loops::free_number(control.as_fd()).map_err(VolumeError::host(path))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match Device::open(path) {
                Ok(device) => device,
                Err((_, Errno::NXIO)) => continue,
                Err((error, _)) => return Err(error),
            };
            match loops::configure(device.fd.as_fd(), self.fd.as_fd(), sector_bytes) {
                Ok(()) => {
                    device.use_direct_io();
                    return Ok(device);
                }
                // Another process took it.
                Err(error) if error.is(Errno::BUSY) => {}
                Err(error) => return Err(VolumeError::host(&device.path)(error)),
            }
        }
        Err(busy(&self.path))
    }

    /// Opens the file system of the image, which may be mounted elsewhere, as a mount without a
    /// path that ends with its last descriptor.
    pub(super) fn mount_detached(&self, device: &Device, how: &MountOptions) -> Result<OwnedFd> {
        let kind = self.kind()?;
        let failed = VolumeError::host(&self.path);
        let context = context::open(kind.name()).map_err(&failed)?;
        let context = context.as_fd();
        let source = device.path.to_string_lossy();
        context::set(context, "source", Some(&source)).map_err(&failed)?;
        match kind {
            // Snapshots of a volume have its UUID.
            Kind::Xfs => context::set(context, "nouuid", None).map_err(&failed)?,
            Kind::Ext4 => {}
        }
        // The host gets back the space of files that are removed.
        context::set(context, "discard", None).map_err(&failed)?;
        for Parameter { key, value } in &how.parameters {
            context::set(context, key, value.as_deref())
                .map_err(|_| refused_option("o", key, &reason(context)))?;
        }
        match context::create(context) {
            Ok(()) => {}
            Err(error) if error.is(Errno::INVAL) && !how.parameters.is_empty() => {
                let words: Vec<&str> = how.parameters.iter().map(|it| it.key.as_str()).collect();
                return Err(refused_option("o", &words.join(","), &reason(context)));
            }
            Err(error) => return Err(failed(error)),
        }
        context::mount(context, how.flags, how.times).map_err(&failed)
    }
}

/// What the kernel says about the last parameter or mount.
fn reason(context: BorrowedFd<'_>) -> String {
    let mut messages = Vec::new();
    while let Ok(Some(message)) = context::message(context) {
        messages.push(message);
    }
    if messages.is_empty() { "the kernel refused it".to_owned() } else { messages.join("; ") }
}

impl Device {
    fn open(path: PathBuf) -> std::result::Result<Self, (VolumeError, Errno)> {
        let failed = |error: crate::error::Error| {
            let errno = error.errno();
            (VolumeError::host(&path)(error), errno)
        };
        let fd = sys::file::open_path(&path, OFlags::RDWR).map_err(failed)?;
        let number = sys::file::statx(fd.as_fd(), b"").map_err(failed)?.rdev;
        Ok(Self { path, fd, number })
    }

    /// Whether the device backs the file with these attributes.
    fn backs(&self, image: &Stat) -> Result<bool> {
        match loops::status(self.fd.as_fd()) {
            Ok(status) => Ok((status.dev, status.ino) == (image.dev, image.ino)),
            Err(error) if error.is(Errno::NXIO) => Ok(false),
            Err(error) => Err(VolumeError::host(&self.path)(error)),
        }
    }

    /// Whether the device shows the whole image, and can be written to.
    pub(super) fn is_whole(&self) -> Result<bool> {
        let status = loops::status(self.fd.as_fd()).map_err(VolumeError::host(&self.path))?;
        Ok((status.offset, status.size_limit, status.read_only) == (0, 0, false))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what users of the device wrote to the image.
    pub(super) fn flush(&self) -> Result<()> {
        sys::file::fsync(self.fd.as_fd()).map_err(VolumeError::host(&self.path))
    }

    /// Lets the kernel detach the device when its last user closes it. This is one of them.
    pub(super) fn detach(self) -> Result<()> {
        match loops::detach(self.fd.as_fd()) {
            Err(error) if error.is(Errno::NXIO) => Ok(()),
            done => done.map_err(VolumeError::host(&self.path)),
        }
    }

    pub(super) fn into_attached(self) -> Attached {
        Attached::new(self.path, self.fd)
    }

    fn use_direct_io(&self) {
        if let Err(error) = loops::set_direct(self.fd.as_fd()) {
            tracing::debug!(%error, device = %self.path.display(), "no direct I/O");
        }
    }

    /// The blocks of the ext4 file system that is mounted from the device.
    pub(super) fn ext4_blocks(&self) -> Result<u64> {
        ext4_blocks(self.fd.as_fd(), &self.path)
    }

    /// Makes the device as large as the image is now.
    pub(super) fn adopt_size(&self) -> Result<()> {
        loops::set_capacity(self.fd.as_fd()).map_err(VolumeError::host(&self.path))
    }
}

/// Reads the blocks of an ext4 file system from its superblock: on the device while it is mounted,
/// else in the image.
fn ext4_blocks(fd: BorrowedFd<'_>, path: &Path) -> Result<u64> {
    let mut head = [0; 1024];
    let read = sys::file::pread(fd, &mut head, 1024).map_err(VolumeError::host(path))?;
    // `s_blocks_count_lo`, `s_blocks_count_hi` of `struct ext4_super_block`.
    let field = |at: usize| {
        let bytes = head.get(at..at + 4).filter(|_| at + 4 <= read)?;
        bytes.try_into().ok().map(u32::from_le_bytes).map(u64::from)
    };
    let blocks = field(0x150).zip(field(4)).map(|(high, low)| (high << 32) | low);
    blocks.ok_or_else(|| VolumeError::io(path)(io::ErrorKind::UnexpectedEof.into()))
}

/// What is mounted at `_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounted {
    Nothing,
    /// The file system with this device number.
    Device(u64),
}

/// Reads what is mounted at `_data` of the directory of a volume.
pub(super) fn mounted(place: &Place, directory: &OwnedFd) -> Result<Mounted> {
    let path = place.data();
    let id = |name| sys::file::mount_id(directory.as_fd(), name).map_err(VolumeError::host(&path));
    if id(b"".as_slice())? == id(DATA)? {
        return Ok(Mounted::Nothing);
    }
    let stat = sys::file::statx(directory.as_fd(), DATA).map_err(VolumeError::host(&path))?;
    Ok(Mounted::Device(stat.dev))
}

impl Mounted {
    /// Whether it is the file system on a device.
    pub(super) fn is_on(self, device: Option<&Device>) -> bool {
        device.is_some_and(|device| self == Self::Device(device.number))
    }
}

/// Opens `_data`: the root of the file system that is mounted there.
pub(super) fn open_data(place: &Place, directory: &OwnedFd) -> Result<OwnedFd> {
    sys::file::openat(directory.as_fd(), DATA, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(VolumeError::host(&place.data()))
}

/// Puts a mount over `_data`.
pub(super) fn put_at_data(place: &Place, directory: &OwnedFd, mount: &OwnedFd) -> Result<()> {
    let path = place.data();
    let data = sys::file::openat(directory.as_fd(), DATA, OFlags::PATH | OFlags::DIRECTORY);
    let data = data.map_err(VolumeError::host(&path))?;
    sys::bind::attach(mount.as_fd(), data.as_fd()).map_err(VolumeError::host(&path))
}

/// Ends the mount at `_data`.
pub(super) fn end_at_data(place: &Place, directory: &OwnedFd) -> Result<()> {
    let path = place.data();
    match sys::bind::unmount_at(directory.as_fd(), DATA) {
        Err(error) if error.is(Errno::BUSY) => Err(busy(&path)),
        done => done.map_err(VolumeError::host(&path)),
    }
}

/// Opens the root of a mount without a path, for calls on the file system.
pub(super) fn open_root(mount: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    sys::file::openat(mount.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(VolumeError::host(path))
}

/// Allows changes of a file system that a crash during a copy left frozen.
pub(super) fn thaw(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    match sys::disk::thaw(root) {
        // It is not frozen.
        Err(error) if error.is(Errno::INVAL) => Ok(()),
        done => done.map_err(VolumeError::host(path)),
    }
}
