//! Controls of files and file systems, and file handles.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::IFlags;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use crate::error::{Errno, Error, Result};
use crate::sys::{c_name, last, refused};
use crate::types::FsXattr;

/// `struct fsxattr` of the kernel's `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawFsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct fsuuid2` of the kernel's `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawUuid {
    len: u8,
    uuid: [u8; 16],
}

const FS_IOC_FSGETXATTR: Opcode = opcode::read::<RawFsXattr>(b'X', 31);
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<RawFsXattr>(b'X', 32);
const FS_IOC_GETFSUUID: Opcode = opcode::read::<RawUuid>(0x15, 0);
/// ext4 supports this call also before Linux 6.9, which added the general one.
const FS_IOC_GETUUID_EXT4: Opcode = opcode::read::<[u32; 2]>(b'f', 44);

/// Longest file handle (`MAX_HANDLE_SZ`).
const HANDLE_BYTES: usize = 128;

/// `struct file_handle` with room for the longest one.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES],
}

/// `struct fsuuid` of ext4 (`include/uapi/linux/ext4.h`) with its 16 bytes.
#[repr(C)]
struct Ext4Uuid {
    len: u32,
    flags: u32,
    uuid: [u8; 16],
}

/// Makes `to`, which is empty, share all extents of `from`.
///
/// # Errors
/// As ioctl_ficlone(2).
pub fn ficlone(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::ioctl_ficlone(to, from).map_err(refused("FICLONE"))
}

/// `FS_IOC_GETFLAGS`.
///
/// # Errors
/// As the ioctl; `ENOTTY` where the file system has none.
pub fn flags(fd: BorrowedFd<'_>) -> Result<u32> {
    rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits()).map_err(refused("FS_IOC_GETFLAGS"))
}

/// `FS_IOC_SETFLAGS`.
///
/// # Errors
/// As the ioctl.
pub fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(flags))
        .map_err(refused("FS_IOC_SETFLAGS"))
}

/// `FS_IOC_FSGETXATTR`.
///
/// # Errors
/// As the ioctl; `ENOTTY` where the file system has none.
pub fn fsxattr(fd: BorrowedFd<'_>) -> Result<FsXattr> {
    // SAFETY: the opcode carries the size of RawFsXattr, which has no padding and for which every
    // bit pattern is valid; the kernel fills it whole.
    let found = unsafe { ioctl(fd, Getter::<FS_IOC_FSGETXATTR, RawFsXattr>::new()) };
    let found = found.map_err(refused("FS_IOC_FSGETXATTR"))?;
    Ok(FsXattr {
        xflags: found.xflags,
        extsize: found.extsize,
        nextents: found.nextents,
        projid: found.projid,
        cowextsize: found.cowextsize,
    })
}

/// `FS_IOC_FSSETXATTR`.
///
/// # Errors
/// As the ioctl.
pub fn set_fsxattr(fd: BorrowedFd<'_>, value: &FsXattr) -> Result<()> {
    let raw = RawFsXattr {
        xflags: value.xflags,
        extsize: value.extsize,
        nextents: value.nextents,
        projid: value.projid,
        cowextsize: value.cowextsize,
        pad: [0; 8],
    };
    // SAFETY: the kernel reads one RawFsXattr, which the call owns and which has no padding.
    let done = unsafe { ioctl(fd, Setter::<FS_IOC_FSSETXATTR, RawFsXattr>::new(raw)) };
    done.map_err(refused("FS_IOC_FSSETXATTR"))
}

/// Returns the UUID of the file system of an open file or directory (`FS_IOC_GETFSUUID`).
///
/// # Errors
/// As the ioctl; `ENOTTY` before Linux 6.9 and for a file system without one.
pub fn fs_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16]> {
    // SAFETY: the opcode carries the size of RawUuid, an array of bytes for which every bit
    // pattern is valid; the kernel fills it whole.
    let found = unsafe { ioctl(fd, Getter::<FS_IOC_GETFSUUID, RawUuid>::new()) };
    match found {
        Ok(found) if usize::from(found.len) == found.uuid.len() => Ok(found.uuid),
        Ok(_) => Err(Error::os("FS_IOC_GETFSUUID", Errno::NOTTY)),
        Err(errno) => Err(refused("FS_IOC_GETFSUUID")(errno)),
    }
}

/// Returns the UUID of an ext4 file system, where [`fs_uuid`] fails (`EXT4_IOC_GETFSUUID`).
///
/// # Errors
/// As the ioctl; `ENOTTY` for another file system.
pub fn ext4_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut found = Ext4Uuid { len: 16, flags: 0, uuid: [0; 16] };
    // SAFETY: the kernel reads the header and writes at most `len` bytes behind it, for which
    // `found` has room; it lives until the call returns. Every bit pattern is valid for it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETUUID_EXT4 as _, &raw mut found) };
    if done == 0 { Ok(found.uuid) } else { Err(last("EXT4_IOC_GETFSUUID")) }
}

/// Returns the file handle of an object: its type and bytes. An empty name is the descriptor.
///
/// # Errors
/// As name_to_handle_at(2); `EOPNOTSUPP` where the file system has no handles.
pub fn name_to_handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(i32, Vec<u8>)> {
    const OP: &str = "name_to_handle_at";
    let name = c_name(OP, name)?;
    let mut raw = RawHandle { bytes: HANDLE_BYTES as u32, kind: 0, handle: [0; HANDLE_BYTES] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `name` is NUL-terminated; the kernel writes at most `bytes` bytes of handle, for
    // which `raw` has room, and one int; all three live until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if done != 0 {
        return Err(last(OP));
    }
    let len = usize::try_from(raw.bytes).unwrap_or(HANDLE_BYTES).min(HANDLE_BYTES);
    Ok((raw.kind, raw.handle.iter().take(len).copied().collect()))
}
