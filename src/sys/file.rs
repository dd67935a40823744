//! Files: opening, attributes, data and space.
//!
//! Where a function takes a directory and a name, an empty name means the descriptor itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    FallocateFlags, FlockOperation, Gid, ResolveFlags, SeekFrom, Statx, StatxFlags, StatxTimestamp,
    Timespec, Timestamps, Uid,
};
use rustix::io::Errno as Raw;

use crate::error::{Errno, Error, Result};
use crate::sys::{c_name, last, refused};
use crate::types::{AttrChange, Kind, Seek, SetTime, Stat, StatFs, Time};

pub use rustix::fs::{AtFlags, OFlags, major, makedev, minor};

/// The current directory, for functions that take a directory.
pub const CWD: BorrowedFd<'static> = rustix::fs::CWD;

/// Applies to the object itself: no link is followed, and an empty name is the descriptor.
const ITSELF: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::EMPTY_PATH);

fn time(stamp: StatxTimestamp) -> Time {
    Time { secs: stamp.tv_sec, nanos: stamp.tv_nsec }
}

fn attributes(found: &Statx) -> Stat {
    let born = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let attribute = |flag| found.stx_attributes.contains(flag);
    Stat {
        dev: makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        mode: u32::from(found.stx_mode),
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        rdev: makedev(found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        blksize: found.stx_blksize,
        atime: time(found.stx_atime),
        mtime: time(found.stx_mtime),
        ctime: time(found.stx_ctime),
        btime: born.then(|| time(found.stx_btime)),
        immutable: attribute(rustix::fs::StatxAttributes::IMMUTABLE),
        append_only: attribute(rustix::fs::StatxAttributes::APPEND),
    }
}

/// Returns the attributes of an object. No automount is triggered.
///
/// # Errors
/// As statx(2).
pub fn statx(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = rustix::fs::statx(dir, name, ITSELF | AtFlags::NO_AUTOMOUNT, mask);
    found.map(|found| attributes(&found)).map_err(refused("statx"))
}

/// Requests the attributes of an open object from its file system, past the kernel's cache.
///
/// # Errors
/// As statx(2) with `AT_STATX_FORCE_SYNC`.
pub fn statx_fresh(fd: BorrowedFd<'_>) -> Result<Stat> {
    let flags = ITSELF | AtFlags::STATX_FORCE_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::BASIC_STATS);
    found.map(|found| attributes(&found)).map_err(refused("statx"))
}

/// Returns the device number of an object, without a request to its file system.
///
/// # Errors
/// As statx(2) with `AT_STATX_DONT_SYNC`.
pub fn device(fd: BorrowedFd<'_>) -> Result<u64> {
    let flags = ITSELF | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::empty());
    found.map(|found| attributes(&found).dev).map_err(refused("statx"))
}

/// Returns the mount through which an object is reached, as `stx_mnt_id` numbers it.
///
/// # Errors
/// As statx(2).
pub fn mount_id(dir: BorrowedFd<'_>, name: &[u8]) -> Result<u64> {
    // A file system that does not answer has a mount too.
    let flags = ITSELF | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(dir, name, flags, StatxFlags::MNT_ID);
    found.map(|found| found.stx_mnt_id).map_err(refused("statx"))
}

/// The number of a file system as /proc writes it, `MAJOR:MINOR`.
#[must_use]
pub fn device_label(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// Returns the file system and the mount of the object at a path, following links, without a
/// request to the file system.
///
/// # Errors
/// As statx(2) with `AT_STATX_DONT_SYNC`.
pub fn place_of(path: &Path) -> Result<(u64, u64)> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID)
        .map_err(refused("statx"))?;
    Ok((attributes(&found).dev, found.stx_mnt_id))
}

/// Opens an entry of a directory, closed on exec. A symbolic link as the last component is refused,
/// or with `O_PATH` opened itself.
///
/// # Errors
/// As openat(2).
pub fn openat(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    openat_with_mode(dir, name, flags, 0)
}

/// Opens or makes an entry of a directory, as [`openat`].
///
/// # Errors
/// As openat(2).
pub fn openat_with_mode(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::from_raw_mode(mode);
    rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, flags, mode))
        .map_err(refused("openat"))
}

/// Opens a path as the kernel resolves it, following links: for paths from an administrator.
///
/// # Errors
/// As open(2).
pub fn open_path(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let mode = rustix::fs::Mode::empty();
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, mode))
        .map_err(refused("open"))
}

/// Opens the regular file behind a descriptor once more, as an open file of its own.
///
/// # Errors
/// As open(2) on /proc/self/fd.
pub fn open_again(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open_path(Path::new(&path), flags | OFlags::NONBLOCK | OFlags::NOCTTY)
}

/// Finds a directory as [`open_path`] does; the descriptor (`O_PATH`) only names it.
///
/// # Errors
/// As open(2).
pub fn find_directory(path: &Path) -> Result<OwnedFd> {
    open_path(path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Opens a directory beneath `root` for listing; crosses no symbolic link and no mount.
///
/// # Errors
/// As [`open_beneath_no_links`].
pub fn open_listing(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    resolve(root, path, OFlags::RDONLY | OFlags::DIRECTORY, how)
}

/// Opens a path from a client, resolved beneath `root` by the kernel: neither `..` nor a link nor a
/// magic link of /proc leads out of it.
///
/// # Errors
/// As openat2(2); `EXDEV` for a path that leads out.
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a path of a tree whose root is `root`, as a process in the tree does: links and `..` lead
/// within it, and an absolute path begins at the root.
///
/// # Errors
/// As openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a path beneath `root` that holds no symbolic link at all.
///
/// # Errors
/// As openat2(2); `ELOOP` at a symbolic link, `EXDEV` for a path that leads out.
pub fn open_beneath_no_links(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Opens an absolute path that holds no symbolic link: one that was resolved before. A link that
/// was put there since is an error and leads nowhere.
///
/// # Errors
/// As openat2(2); `ELOOP` at a symbolic link.
pub fn open_resolved(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    resolve(CWD, path.as_os_str().as_encoded_bytes(), flags, ResolveFlags::NO_SYMLINKS)
}

fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
    // EAGAIN: a rename happened while `..` was resolved; openat2(2) is to be retried.
    const TRIES: usize = 64;
    let mode = rustix::fs::Mode::empty();
    let open = || rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, how);
    let mut opened = open();
    for _ in 1..TRIES {
        if !matches!(opened, Err(Raw::AGAIN | Raw::INTR)) {
            break;
        }
        opened = open();
    }
    opened.map_err(refused("openat2"))
}

/// Makes a file without a name in a directory, open for reading and writing.
///
/// # Errors
/// As open(2) with `O_TMPFILE`.
pub fn unnamed(dir: &Path, mode: u32) -> Result<std::fs::File> {
    let mode = rustix::fs::Mode::from_raw_mode(mode);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = rustix::io::retry_on_intr(|| rustix::fs::open(dir, flags, mode));
    made.map(std::fs::File::from).map_err(refused("open"))
}

/// Gives a file without a name its first name.
///
/// # Errors
/// As linkat(2).
pub fn link(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    // As open(2) describes it for processes without CAP_DAC_READ_SEARCH.
    let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(refused("linkat"))
}

/// Returns another descriptor of the same open file.
///
/// # Errors
/// As fcntl(2) with `F_DUPFD_CLOEXEC`.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(refused("fcntl"))
}

/// Whether a descriptor only names a place (`O_PATH`).
///
/// # Errors
/// As fcntl(2) with `F_GETFL`.
pub fn is_path_only(fd: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(refused("fcntl"))?;
    Ok(flags.contains(OFlags::PATH))
}

/// Returns the path of an open file in the mount namespace of this process, as /proc shows it: a
/// hint, which the next rename may make wrong.
///
/// # Errors
/// As readlink(2) on /proc/self/fd.
pub fn path_of(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::readlink(link, Vec::new())
        .map(std::ffi::CString::into_bytes)
        .map_err(refused("readlink"))
}

/// Reads once at an offset.
///
/// # Errors
/// As pread(2).
pub fn pread(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *buf, offset)).map_err(refused("pread"))
}

/// Writes once at an offset.
///
/// # Errors
/// As pwrite(2).
pub fn pwrite(fd: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, data, offset)).map_err(refused("pwrite"))
}

/// Writes at the current end of a file.
///
/// # Errors
/// As pwritev2(2) with `RWF_APPEND`.
pub fn append(fd: BorrowedFd<'_>, data: &[u8]) -> Result<usize> {
    let parts = [std::io::IoSlice::new(data)];
    let flags = rustix::io::ReadWriteFlags::APPEND;
    rustix::io::retry_on_intr(|| rustix::io::pwritev2(fd, &parts, 0, flags))
        .map_err(refused("pwritev2"))
}

/// Sets the size of an open file.
///
/// # Errors
/// As ftruncate(2).
pub fn ftruncate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::ftruncate(fd, len)).map_err(refused("ftruncate"))
}

/// Allocates, frees or moves space of a file; `mode` holds the `FALLOC_FL_*` bits.
///
/// # Errors
/// As fallocate(2).
pub fn fallocate(fd: BorrowedFd<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
    let mode = FallocateFlags::from_bits_retain(mode);
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(fd, mode, offset, len))
        .map_err(refused("fallocate"))
}

/// Returns the next data or hole at or behind an offset. Moves the position of the descriptor.
///
/// # Errors
/// As lseek(2); `ENXIO` behind the end.
pub fn seek_extent(fd: BorrowedFd<'_>, offset: u64, whence: Seek) -> Result<u64> {
    let to = match whence {
        Seek::Data => SeekFrom::Data(offset),
        Seek::Hole => SeekFrom::Hole(offset),
    };
    rustix::fs::seek(fd, to).map_err(refused("lseek"))
}

/// Sets the position of the descriptor.
///
/// # Errors
/// As lseek(2).
pub fn seek_to(fd: BorrowedFd<'_>, offset: u64) -> Result<()> {
    rustix::fs::seek(fd, SeekFrom::Start(offset)).map(drop).map_err(refused("lseek"))
}

/// Makes data and attributes durable.
///
/// # Errors
/// As fsync(2).
pub fn fsync(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::fsync(fd)).map_err(refused("fsync"))
}

/// Makes data durable, and the metadata that is needed to read it.
///
/// # Errors
/// As fdatasync(2).
pub fn fdatasync(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::fdatasync(fd)).map_err(refused("fdatasync"))
}

/// Makes a whole file system durable.
///
/// # Errors
/// As syncfs(2).
pub fn syncfs(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::syncfs(fd)).map_err(refused("syncfs"))
}

/// Copies a range between two open files within the kernel; may copy less, 0 at the end.
///
/// # Errors
/// As copy_file_range(2).
pub fn copy_file_range(
    (from, mut from_offset): (BorrowedFd<'_>, u64),
    (to, mut to_offset): (BorrowedFd<'_>, u64),
    len: usize,
) -> Result<usize> {
    rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), len)
        .map_err(refused("copy_file_range"))
}

/// Whether an open file or directory is of a FUSE file system (`FUSE_SUPER_MAGIC`).
///
/// # Errors
/// As fstatfs(2).
pub fn is_fuse(fd: BorrowedFd<'_>) -> Result<bool> {
    let found = rustix::fs::fstatfs(fd).map_err(refused("fstatfs"))?;
    Ok(found.f_type == 0x6573_5546)
}

/// Returns the space and inodes of a file system.
///
/// # Errors
/// As fstatfs(2).
pub fn fstatfs(fd: BorrowedFd<'_>) -> Result<StatFs> {
    let found = rustix::fs::fstatfs(fd).map_err(refused("fstatfs"))?;
    let narrow = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(StatFs {
        blocks: found.f_blocks,
        bfree: found.f_bfree,
        bavail: found.f_bavail,
        files: found.f_files,
        ffree: found.f_ffree,
        bsize: narrow(found.f_bsize),
        frsize: narrow(found.f_frsize),
        namelen: narrow(found.f_namelen),
    })
}

/// Changes owner and group; `None` keeps a value.
///
/// # Errors
/// As fchownat(2).
pub fn fchownat(
    dir: BorrowedFd<'_>,
    name: &[u8],
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<()> {
    // -1 means "keep" to the system call, so it is not possible as an owner.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Error::os("fchownat", Errno::INVAL));
    }
    rustix::fs::chownat(dir, name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), ITSELF)
        .map_err(refused("fchownat"))
}

/// Changes the permission bits, without following a link (`EOPNOTSUPP` for one).
///
/// # Errors
/// As fchmodat2(2); `ENOSYS` before Linux 6.6.
pub fn fchmodat2(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    const OP: &str = "fchmodat2";
    let name = c_name(OP, name)?;
    // SAFETY: the descriptor is borrowed for the call and `name` is a NUL-terminated string that
    // lives until it returns; the kernel only reads it.
    let done = unsafe {
        libc::syscall(libc::SYS_fchmodat2, dir.as_raw_fd(), name.as_ptr(), mode, ITSELF.bits())
    };
    if done == 0 { Ok(()) } else { Err(last(OP)) }
}

/// Changes the permission bits without following a link, on any kernel.
///
/// # Errors
/// As fchmodat2(2); `EOPNOTSUPP` for a link.
pub fn set_mode(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    match fchmodat2(dir, name, mode) {
        Err(error) if error.is(Errno::NOSYS) => {}
        done => return done,
    }
    // Before Linux 6.6: through the descriptor of the object itself.
    let object = match name {
        b"" => duplicate(dir)?,
        _ => openat(dir, name, OFlags::PATH)?,
    };
    if statx(object.as_fd(), b"")?.kind() == Kind::Symlink {
        return Err(Error::os("chmod", Errno::OPNOTSUPP));
    }
    chmod(format!("/proc/self/fd/{}", object.as_raw_fd()).as_bytes(), mode)
}

/// Changes the permission bits of the object at a path, following links.
///
/// # Errors
/// As chmod(2).
pub fn chmod(path: &[u8], mode: u32) -> Result<()> {
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode)).map_err(refused("chmod"))
}

/// Sets the times of an object to those of `change`; its other fields are ignored.
///
/// # Errors
/// As utimensat(2).
pub fn utimensat(dir: BorrowedFd<'_>, name: &[u8], change: &AttrChange) -> Result<()> {
    let stamp = |wanted: Option<SetTime>| match wanted {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(SetTime::At(time)) => Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() },
    };
    let times =
        Timestamps { last_access: stamp(change.atime), last_modification: stamp(change.mtime) };
    rustix::fs::utimensat(dir, name, &times, ITSELF).map_err(refused("utimensat"))
}

/// Takes an exclusive flock(2) without waiting; it ends with the last descriptor of this open file.
/// `EAGAIN` while another open file holds it.
///
/// # Errors
/// As flock(2).
pub fn try_flock(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive).map_err(refused("flock"))
}

/// Takes an exclusive flock(2), waiting for it.
///
/// # Errors
/// As flock(2); `EINTR` when a signal came.
pub fn flock(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::flock(fd, FlockOperation::LockExclusive).map_err(refused("flock"))
}

/// Releases a flock(2).
///
/// # Errors
/// As flock(2).
pub fn unlock(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::flock(fd, FlockOperation::Unlock).map_err(refused("flock"))
}

/// Takes a shared flock(2), waiting for it.
///
/// # Errors
/// As flock(2); `EINTR` when a signal came.
pub fn flock_shared(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::flock(fd, FlockOperation::LockShared).map_err(refused("flock"))
}

/// Takes a shared flock(2) without waiting, as [`try_flock`].
///
/// # Errors
/// As flock(2).
pub fn try_flock_shared(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::flock(fd, FlockOperation::NonBlockingLockShared).map_err(refused("flock"))
}
