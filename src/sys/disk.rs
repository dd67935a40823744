//! Mounted file systems on block devices: freezing and growing.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::ioctl::{Getter, NoArg, Opcode, Setter, ioctl, opcode};
use rustix::process::Pid;

use crate::error::Result;
use crate::sys::{last, process, refused};

/// `struct xfs_fsop_geom_v1` of the kernel's `fs/xfs/libxfs/xfs_fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawGeometry {
    block_bytes: u32,
    realtime_extent_blocks: u32,
    group_blocks: u32,
    group_count: u32,
    log_blocks: u32,
    sector_bytes: u32,
    inode_bytes: u32,
    inode_percent_max: u32,
    data_blocks: u64,
    realtime_blocks: u64,
    realtime_extents: u64,
    log_start: u64,
    uuid: [u8; 16],
    stripe_unit: u32,
    stripe_width: u32,
    version: i32,
    flags: u32,
    log_sector_bytes: u32,
    realtime_sector_bytes: u32,
    directory_block_bytes: u32,
    pad: u32,
}

/// `struct xfs_growfs_data` of the kernel's `fs/xfs/libxfs/xfs_fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawGrow {
    blocks: u64,
    inode_percent_max: u32,
    pad: u32,
}

const FIFREEZE: Opcode = opcode::read_write::<i32>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<i32>(b'X', 120);
const EXT4_IOC_RESIZE_FS: Opcode = opcode::write::<u64>(b'f', 16);
const XFS_IOC_FSGEOMETRY_V1: Opcode = opcode::read::<RawGeometry>(b'X', 100);
const XFS_IOC_FSGROWFSDATA: Opcode = opcode::write::<RawGrow>(b'X', 110);

/// The size of an XFS file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XfsGeometry {
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Blocks of an allocation group.
    pub group_blocks: u32,
    /// The largest part of the space that inodes may take, in percent.
    pub inode_percent_max: u32,
}

/// Writes a file system to its device and stops all changes until [`thaw`], also after the end of
/// the process (`FIFREEZE`).
///
/// # Errors
/// As the ioctl; `EBUSY` if it is frozen already.
pub fn freeze(root: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the kernel ignores the argument and touches no memory.
    let done = unsafe { ioctl(root, NoArg::<FIFREEZE>::new()) };
    done.map_err(refused("FIFREEZE"))
}

/// Allows changes again (`FITHAW`).
///
/// # Errors
/// As the ioctl; `EINVAL` if it is not frozen.
pub fn thaw(root: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the kernel ignores the argument and touches no memory.
    let done = unsafe { ioctl(root, NoArg::<FITHAW>::new()) };
    done.map_err(refused("FITHAW"))
}

/// A process that thaws a file system when this value is dropped, and when this process ends,
/// however it does.
#[derive(Debug)]
pub struct ThawAtEnd {
    child: Pid,
    /// The other end of the pipe that the child reads.
    alive: OwnedFd,
}

impl Drop for ThawAtEnd {
    fn drop(&mut self) {
        // A child of another thread may have a copy of this end, so closing it is not enough.
        let told = process::write_byte(&self.alive, 0);
        if let Err(error) = told.and_then(|()| process::wait_for(self.child)) {
            tracing::warn!(%error, "the process that thaws a file system is not waited for");
        }
    }
}

/// Starts a [`ThawAtEnd`]. It has all descriptors of this process until it ends.
///
/// # Errors
/// As pipe(2) and fork(2).
pub fn thaw_at_end(root: BorrowedFd<'_>) -> Result<ThawAtEnd> {
    let (theirs, ours) = process::pipe()?;
    // SAFETY: other threads may exist, so the child makes nothing but system calls that are
    // async-signal-safe (signal-safety(7)), on its own stack, and ends with _exit(2).
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            libc::setsid();
            libc::close(ours.as_raw_fd());
            let mut byte = 0_u8;
            // All signals are blocked: it ends with the other end of the pipe.
            libc::read(theirs.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::ioctl(root.as_raw_fd(), FITHAW as libc::Ioctl, 0);
            libc::_exit(0);
        }
        child
    };
    match Pid::from_raw(child) {
        Some(child) if child.as_raw_pid() > 0 => Ok(ThawAtEnd { child, alive: ours }),
        _ => Err(last("fork")),
    }
}

/// Grows an ext4 file system to a number of its blocks (`EXT4_IOC_RESIZE_FS`). A crash leaves it
/// whole and at some size between the old and the new one.
///
/// # Errors
/// As the ioctl; `EINVAL` for fewer blocks than there are, `ENOSPC` behind the end of the device.
pub fn grow_ext4(root: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one u64, which the call owns.
    let done = unsafe { ioctl(root, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks)) };
    done.map_err(refused("EXT4_IOC_RESIZE_FS"))
}

/// Returns the size of an XFS file system (`XFS_IOC_FSGEOMETRY_V1`).
///
/// # Errors
/// As the ioctl.
pub fn xfs_geometry(root: BorrowedFd<'_>) -> Result<XfsGeometry> {
    // SAFETY: the opcode carries the size of RawGeometry, which names its padding and for which
    // every bit pattern is valid; the kernel fills it whole.
    let found = unsafe { ioctl(root, Getter::<XFS_IOC_FSGEOMETRY_V1, RawGeometry>::new()) };
    let found = found.map_err(refused("XFS_IOC_FSGEOMETRY_V1"))?;
    Ok(XfsGeometry {
        block_bytes: found.block_bytes,
        blocks: found.data_blocks,
        group_blocks: found.group_blocks,
        inode_percent_max: found.inode_percent_max,
    })
}

/// Grows an XFS file system to a number of its blocks, and keeps the part that inodes may take
/// (`XFS_IOC_FSGROWFSDATA`). A crash leaves the old size or the new one.
///
/// # Errors
/// As the ioctl; `EINVAL` for fewer blocks than there are, `EIO` behind the end of the device.
pub fn grow_xfs(root: BorrowedFd<'_>, blocks: u64, inode_percent_max: u32) -> Result<()> {
    let grow = RawGrow { blocks, inode_percent_max, pad: 0 };
    // SAFETY: the kernel reads one RawGrow, which the call owns and which has no padding left out.
    let done = unsafe { ioctl(root, Setter::<XFS_IOC_FSGROWFSDATA, RawGrow>::new(grow)) };
    done.map_err(refused("XFS_IOC_FSGROWFSDATA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<RawGeometry>(), size_of::<RawGrow>()), (112, 16));
    }
}
