//! System calls of the FUSE front end: the device, mounting, and the rights of the process.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags as RawUnmount};

use super::bind::detach_at;
use super::file::{open_resolved, openat, path_of, statx};
use super::process::random;
use crate::error::{Errno, Error};
use crate::types::hex;

/// `O_ACCMODE` of open flags as FUSE carries them.
pub const O_ACCMODE: u32 = libc::O_ACCMODE as u32;
/// `O_RDONLY`.
pub const O_RDONLY: u32 = libc::O_RDONLY as u32;
/// `O_TRUNC`.
pub const O_TRUNC: u32 = libc::O_TRUNC as u32;
/// `O_EXCL`.
pub const O_EXCL: u32 = libc::O_EXCL as u32;
/// `O_APPEND`.
pub const O_APPEND: u32 = libc::O_APPEND as u32;
/// `__FMODE_EXEC` (`include/linux/fs.h`): opened by execve(2), as a program or its interpreter.
pub const FMODE_EXEC: u32 = 0x20;

/// `FS_IOC_GETFLAGS`.
pub const FS_IOC_GETFLAGS: u32 = libc::FS_IOC_GETFLAGS as u32;
/// `FS_IOC_SETFLAGS`.
pub const FS_IOC_SETFLAGS: u32 = libc::FS_IOC_SETFLAGS as u32;
/// `FS_IOC32_GETFLAGS`.
pub const FS_IOC32_GETFLAGS: u32 = rustix::ioctl::opcode::read::<u32>(b'f', 1) as u32;
/// `FS_IOC32_SETFLAGS`.
pub const FS_IOC32_SETFLAGS: u32 = rustix::ioctl::opcode::write::<u32>(b'f', 2) as u32;
/// `FS_IOC_FSGETXATTR`.
pub const FS_IOC_FSGETXATTR: u32 = rustix::ioctl::opcode::read::<[u32; 7]>(b'X', 31) as u32;
/// `FS_IOC_FSSETXATTR`.
pub const FS_IOC_FSSETXATTR: u32 = rustix::ioctl::opcode::write::<[u32; 7]>(b'X', 32) as u32;

/// `FUSE_DEV_IOC_BACKING_CLOSE`.
const BACKING_CLOSE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<u32>(229, 2);

/// The inode of the initial user namespace in nsfs (`PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

/// An open `/dev/fuse`.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Opens `/dev/fuse`; it has no mount yet.
    ///
    /// # Errors
    /// As open(2).
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(errno)?;
        Ok(Self(fd))
    }

    /// Returns another descriptor of the same connection.
    ///
    /// # Errors
    /// As fcntl(2) with `F_DUPFD_CLOEXEC`.
    pub fn duplicate(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map(Self).map_err(errno)
    }

    /// Returns the descriptor itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Waits for one request and reads it; `ENODEV` after the unmount.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.0, buffer).map_err(errno)
    }

    /// Writes one reply or notification; the kernel takes all or nothing.
    ///
    /// # Errors
    /// As writev(2).
    pub fn write(&self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        rustix::io::writev(&self.0, parts).map_err(errno)
    }

    /// Whether the mount still exists: an unmounted or aborted connection reports an error.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let [fd] = match poll(&mut fds, Some(&now)) {
            Ok(_) => fds,
            Err(_) => return true, // the next call of the caller fails
        };
        !fd.revents().contains(PollFlags::ERR)
    }

    /// Closes a registered backing file (`FUSE_DEV_IOC_BACKING_CLOSE`).
    ///
    /// # Errors
    /// As the ioctl.
    pub fn close_backing(&self, id: u32) -> Result<(), Errno> {
        // SAFETY: BACKING_CLOSE reads one u32 behind the pointer, which `Setter` provides and keeps
        // alive for the call; for an id that does not exist it fails with ENOENT.
        let closed = unsafe {
            let call = rustix::ioctl::Setter::<BACKING_CLOSE, u32>::new(id);
            rustix::ioctl::ioctl(&self.0, call)
        };
        closed.map_err(errno)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Flags of a mount that the kernel keeps by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VfsFlags {
    /// `MS_RDONLY`.
    pub read_only: bool,
    /// `MS_NOSUID`.
    pub nosuid: bool,
    /// `MS_NODEV`.
    pub nodev: bool,
    /// `MS_NOEXEC`.
    pub noexec: bool,
    /// `MS_NOATIME`.
    pub noatime: bool,
    /// `MS_RELATIME`; the kernel's default.
    pub relatime: bool,
    /// `MS_STRICTATIME`.
    pub strictatime: bool,
    /// `MS_NODIRATIME`.
    pub nodiratime: bool,
    /// `MS_SYNCHRONOUS`.
    pub sync: bool,
    /// `MS_DIRSYNC`.
    pub dirsync: bool,
    /// `MS_LAZYTIME`.
    pub lazytime: bool,
    /// `MS_NOSYMFOLLOW`: no symbolic link of the mount is followed in a path.
    pub nosymfollow: bool,
}

impl VfsFlags {
    fn bits(self) -> MountFlags {
        let table = [
            (self.read_only, MountFlags::RDONLY),
            (self.nosuid, MountFlags::NOSUID),
            (self.nodev, MountFlags::NODEV),
            (self.noexec, MountFlags::NOEXEC),
            (self.noatime, MountFlags::NOATIME),
            (self.relatime, MountFlags::RELATIME),
            (self.strictatime, MountFlags::STRICTATIME),
            (self.nodiratime, MountFlags::NODIRATIME),
            (self.sync, MountFlags::SYNCHRONOUS),
            (self.dirsync, MountFlags::DIRSYNC),
            (self.lazytime, MountFlags::LAZYTIME),
            (self.nosymfollow, MountFlags::NOSYMFOLLOW),
        ];
        table.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect()
    }
}

/// The parameters of a FUSE mount.
#[derive(Debug, Clone, Copy)]
pub struct FuseMount<'a> {
    /// First column of /proc/mounts.
    pub source: &'a [u8],
    /// The subtype: the file system type is `fuse.SUBTYPE`, or `fuse` without one.
    pub subtype: Option<&'a str>,
    /// Flags of the VFS.
    pub flags: VfsFlags,
    /// Whether users other than the mounting one may enter.
    pub allow_other: bool,
    /// Whether the kernel checks permissions by mode bits and ACLs.
    pub default_permissions: bool,
    /// Labels of SELinux, such as `context="..."`.
    pub labels: &'a [String],
}

/// Mounts the connection of `device` on a directory, with the real user and group as owner. The
/// path was resolved before: a link that was put there since is not followed, and a directory that
/// was moved meanwhile has no mount afterwards.
///
/// # Errors
/// As mount(2) and openat2(2); `ELOOP` at a symbolic link, `ESTALE` if the directory was moved,
/// `EPERM` without CAP_SYS_ADMIN over the mount namespace.
pub fn mount(device: &Device, target: &Path, mount: &FuseMount<'_>) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.0.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for (set, word) in
        [(mount.default_permissions, ",default_permissions"), (mount.allow_other, ",allow_other")]
    {
        if set {
            data.push_str(word);
        }
    }
    for label in mount.labels {
        data.push(',');
        data.push_str(label);
    }
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    let kind = mount.subtype.map_or_else(|| "fuse".to_owned(), |sub| format!("fuse.{sub}"));
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let place = open_resolved(target, directory).map_err(|error| error.errno())?;
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::mount::mount(mount.source, path, kind, mount.flags.bits(), Some(data.as_c_str()))
        .map_err(errno)?;
    settle(place.as_fd(), target).map_err(|error| error.errno())
}

/// Checks that the directory under a new mount is still at its path, else takes the mount away.
/// From then on it keeps its name, since it is a mount point.
fn settle(place: BorrowedFd<'_>, target: &Path) -> Result<(), Error> {
    let above = || openat(place, b"..", OFlags::PATH | OFlags::DIRECTORY);
    // A rename that began before the mount may still go on. It holds the lock of the directory
    // above, for which the lookup of a name waits that the kernel does not know.
    let unknown = format!(".lamina-{}", hex::encode(&random()?));
    drop(statx(above()?.as_fd(), unknown.as_bytes()));
    let now = path_of(place)?;
    if now == target.as_os_str().as_encoded_bytes() {
        return Ok(());
    }
    let name = now.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    detach_at(above()?.as_fd(), name)?;
    Err(Error::os("mount", Errno::STALE))
}

/// Mounts the connection of `device` in no mount namespace, and ends the mount: this process may
/// mount if that works. No other process sees anything of it.
///
/// # Errors
/// As fsopen(2), fsconfig(2) and fsmount(2); `EPERM` without CAP_SYS_ADMIN, `ENOSYS` before Linux
/// 5.2.
pub fn try_mount(device: &Device) -> Result<(), Errno> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    use std::os::fd::AsRawFd;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    for (key, value) in [
        ("fd", device.0.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", rustix::process::getuid().as_raw().to_string()),
        ("group_id", rustix::process::getgid().as_raw().to_string()),
    ] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).map_err(errno)?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(errno)?;
    let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    rustix::mount::fsmount(context.as_fd(), flags, attributes).map(drop).map_err(errno)
}

/// Changes the flags of a mount and of its file system (`MS_REMOUNT`).
///
/// # Errors
/// As mount(2).
pub fn remount(target: &Path, flags: VfsFlags) -> Result<(), Errno> {
    rustix::mount::mount_remount(target, flags.bits(), c"").map_err(errno)
}

/// Whether SELinux is in force, so that the kernel takes labels for a mount.
#[must_use]
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether this process may register passthrough files: CAP_SYS_ADMIN in the initial
/// user namespace (`fuse_backing_open()` in the kernel's `fs/fuse/backing.c`).
#[must_use]
pub fn may_pass_through() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    use std::os::unix::fs::MetadataExt;
    let admin =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let initial = File::open("/proc/self/ns/user")
        .and_then(|namespace| namespace.metadata())
        .is_ok_and(|meta| meta.ino() == INITIAL_USER_NAMESPACE);
    admin && initial
}

/// How a mount is ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnmountFlags {
    /// Detaches the mount at once; it ends when it is no longer used (`MNT_DETACH`).
    pub lazy: bool,
    /// Makes requests that wait for the daemon fail (`MNT_FORCE`).
    pub force: bool,
}

/// Unmounts a path.
///
/// # Errors
/// As umount2(2); `EBUSY` while it is in use, unless `lazy`.
pub fn unmount(target: &Path, how: UnmountFlags) -> Result<(), Errno> {
    let mut flags = RawUnmount::NOFOLLOW;
    flags.set(RawUnmount::DETACH, how.lazy);
    flags.set(RawUnmount::FORCE, how.force);
    rustix::mount::unmount(target, flags).map_err(errno)
}
