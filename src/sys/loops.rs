//! Loop devices: files of the host as block devices (loop(4)).
//!
//! The structures are those of the kernel's `include/uapi/linux/loop.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Getter, IntegerSetter, NoArg, Opcode, Setter, ioctl};

use crate::error::Result;
use crate::sys::{last, refused};

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawConfig {
    fd: u32,
    block_size: u32,
    info: RawInfo,
    reserved: [u64; 8],
}

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_SET_DIRECT_IO: Opcode = 0x4C08;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// The file behind a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopStatus {
    /// The device number of its file system, as [`crate::types::Stat::dev`].
    pub dev: u64,
    /// Its inode number.
    pub ino: u64,
    /// Where the device begins in the file, in bytes.
    pub offset: u64,
    /// Where the device ends in the file, in bytes; 0 for the end of the file.
    pub size_limit: u64,
    /// Whether the device cannot be written to.
    pub read_only: bool,
    /// Whether the device is detached when its last user closes it.
    pub autoclear: bool,
}

/// Returns the number of a loop device that backs no file, making one if needed; another process
/// may take it before the caller does (`LOOP_CTL_GET_FREE` of /dev/loop-control).
///
/// # Errors
/// As the ioctl.
pub fn free_number(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: the request has no argument and touches no memory.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(number).map_err(|_| last("LOOP_CTL_GET_FREE"))
}

/// Attaches a file to a loop device with sectors of `block_bytes`. The device is detached when its
/// last user closes it: a mount is a user, and `device` is one (`LOOP_CONFIGURE`).
///
/// # Errors
/// As the ioctl; `EBUSY` if the device backs a file already, `EINVAL` before Linux 5.8.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_bytes: u32) -> Result<()> {
    let info = RawInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = file.as_raw_fd().cast_unsigned();
    let config = RawConfig { fd, block_size: block_bytes, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one RawConfig, which the call owns and which has no padding; the
    // descriptor in it is borrowed until the call returns, and the kernel takes its own reference.
    let done = unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, RawConfig>::new(config)) };
    done.map_err(refused("LOOP_CONFIGURE"))
}

/// Returns the file behind a loop device (`LOOP_GET_STATUS64`).
///
/// # Errors
/// As the ioctl; `ENXIO` if the device backs no file.
pub fn status(device: BorrowedFd<'_>) -> Result<LoopStatus> {
    let found = info(device)?;
    Ok(LoopStatus {
        dev: found.device,
        ino: found.inode,
        offset: found.offset,
        size_limit: found.size_limit,
        read_only: found.flags & LO_FLAGS_READ_ONLY != 0,
        autoclear: found.flags & LO_FLAGS_AUTOCLEAR != 0,
    })
}

fn info(device: BorrowedFd<'_>) -> Result<RawInfo> {
    // SAFETY: for this request the kernel writes one RawInfo, which has no padding and for which
    // every bit pattern is valid, and fills it whole.
    let found = unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, RawInfo>::new()) };
    found.map_err(refused("LOOP_GET_STATUS64"))
}

/// Sets whether a loop device is detached when its last user closes it (`LOOP_SET_STATUS64`).
/// `device` is a user.
///
/// # Errors
/// As the ioctl; `ENXIO` if the device backs no file.
pub fn set_autoclear(device: BorrowedFd<'_>, autoclear: bool) -> Result<()> {
    let mut info = info(device)?;
    info.flags &= !LO_FLAGS_AUTOCLEAR;
    if autoclear {
        info.flags |= LO_FLAGS_AUTOCLEAR;
    }
    // SAFETY: the kernel reads one RawInfo, which the call owns and which has no padding.
    let done = unsafe { ioctl(device, Setter::<LOOP_SET_STATUS64, RawInfo>::new(info)) };
    done.map_err(refused("LOOP_SET_STATUS64"))
}

/// Makes a loop device as large as its file is now (`LOOP_SET_CAPACITY`).
///
/// # Errors
/// As the ioctl; `ENXIO` if the device backs no file.
pub fn set_capacity(device: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request has no argument and touches no memory.
    let done = unsafe { ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) };
    done.map_err(refused("LOOP_SET_CAPACITY"))
}

/// Makes a loop device read and write its file past the page cache, which holds the data for the
/// file system on the device already (`LOOP_SET_DIRECT_IO`).
///
/// # Errors
/// As the ioctl; `EINVAL` if the file system of the file has no direct I/O in blocks of the device.
pub fn set_direct(device: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes a number, not a pointer.
    let done = unsafe { ioctl(device, IntegerSetter::<LOOP_SET_DIRECT_IO>::new_usize(1)) };
    done.map_err(refused("LOOP_SET_DIRECT_IO"))
}

/// Detaches a loop device from its file, at once or when its last user closes it (`LOOP_CLR_FD`).
///
/// # Errors
/// As the ioctl; `ENXIO` if the device backs no file.
pub fn detach(device: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request has no argument and touches no memory.
    let done = unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) };
    done.map_err(refused("LOOP_CLR_FD"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<RawInfo>(), size_of::<RawConfig>()), (232, 304));
    }
}
