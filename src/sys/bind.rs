//! Mounts of directories and files in another place (bind mounts), by descriptor.
//!
//! A clone is in no mount namespace until [`attach`] puts it over a place. Both are descriptors, so
//! that no path is resolved twice and no symbolic link decides where a mount goes.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::mount::{AccessTimes, RawMountAttr, set_attributes};
use crate::error::Result;
use crate::sys::{last, refused};
use crate::types::BindFlags;

fn bits(flags: BindFlags) -> u64 {
    let table = [
        (flags.read_only, libc::MOUNT_ATTR_RDONLY),
        (flags.nosuid, libc::MOUNT_ATTR_NOSUID),
        (flags.nodev, libc::MOUNT_ATTR_NODEV),
        (flags.noexec, libc::MOUNT_ATTR_NOEXEC),
    ];
    table.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit)
}

/// Clones the mount of an open directory or file, with the object as its root. With `recursive` the
/// mounts beneath are cloned too.
///
/// # Errors
/// As open_tree(2); `EPERM` without CAP_SYS_ADMIN over the mount namespace, `EINVAL` where a more
/// privileged namespace locked a mount beneath and `recursive` is not set.
pub fn clone_tree(object: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(object, c"", flags).map_err(refused("open_tree"))
}

/// Returns the flags of the mount through which an object is reached.
///
/// # Errors
/// As fstatvfs(3).
pub fn flags_of(object: BorrowedFd<'_>) -> Result<BindFlags> {
    let found = rustix::fs::fstatvfs(object).map_err(refused("fstatvfs"))?.f_flag;
    Ok(BindFlags {
        read_only: found.contains(StatVfsMountFlags::RDONLY),
        nosuid: found.contains(StatVfsMountFlags::NOSUID),
        nodev: found.contains(StatVfsMountFlags::NODEV),
        noexec: found.contains(StatVfsMountFlags::NOEXEC),
    })
}

/// Sets flags of a mount and of the mounts beneath, and leaves the others as they are. With
/// `private` the mounts are separated from those that they were cloned from.
///
/// # Errors
/// As mount_setattr(2); `ENOSYS` before Linux 5.12.
pub fn restrict(mount: BorrowedFd<'_>, flags: BindFlags, private: bool) -> Result<()> {
    change(mount, flags, BindFlags::default(), private)
}

/// Sets and clears flags of a mount and of the mounts beneath, by its root.
///
/// # Errors
/// As mount_setattr(2); `EPERM` for a flag that a more privileged namespace locked.
pub fn set_flags(mount: BorrowedFd<'_>, set: BindFlags, clear: BindFlags) -> Result<()> {
    change(mount, set, clear, false)
}

/// Sets flags of a mount that has no place yet, and leaves the others as they are; without `times`
/// its access times too. Separates it from the mount that it was cloned from.
///
/// # Errors
/// As mount_setattr(2); `ENOSYS` before Linux 5.12.
pub fn dress(
    mount: BorrowedFd<'_>,
    flags: BindFlags,
    times: Option<AccessTimes>,
    nosymfollow: bool,
) -> Result<()> {
    let mut attr = RawMountAttr {
        set: bits(flags),
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: 0,
    };
    if nosymfollow {
        attr.set |= libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
    if let Some(times) = times {
        attr.clear |= libc::MOUNT_ATTR__ATIME;
        attr.set |= if times.none {
            libc::MOUNT_ATTR_NOATIME
        } else if times.strict {
            libc::MOUNT_ATTR_STRICTATIME
        } else {
            libc::MOUNT_ATTR_RELATIME
        };
        if times.no_dirs {
            attr.set |= libc::MOUNT_ATTR_NODIRATIME;
        }
    }
    set_attributes(mount, 0, &attr)
}

fn change(mount: BorrowedFd<'_>, set: BindFlags, clear: BindFlags, private: bool) -> Result<()> {
    let attr = RawMountAttr {
        set: bits(set),
        clear: bits(clear),
        propagation: if private { libc::MS_PRIVATE } else { 0 },
        user_namespace: 0,
    };
    // SAFETY: the empty path is a NUL-terminated constant; the kernel reads `attr`, whose size is
    // given and which lives until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<RawMountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last("mount_setattr")) }
}

/// Puts a mount that is in no mount namespace over an open directory or file.
///
/// # Errors
/// As move_mount(2); `ENOTDIR` where one is a directory and the other is not.
pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", place, c"", flags).map_err(refused("move_mount"))
}

/// Takes the mount on an entry of an open directory out of the tree, with those beneath it, also
/// while it is in use; no link is followed.
///
/// # Errors
/// As umount2(2); `EINVAL` where nothing is mounted.
pub fn detach_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
    rustix::mount::unmount(entry(dir, name), flags).map_err(refused("umount2"))
}

fn entry(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Unmounts an entry of an open directory, if it is not in use; no link is followed.
///
/// # Errors
/// As umount2(2); `EBUSY` while it is in use, `EINVAL` where nothing is mounted.
pub fn unmount_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::mount::unmount(entry(dir, name), UnmountFlags::NOFOLLOW).map_err(refused("umount2"))
}
