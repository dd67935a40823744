//! Mounts: making, cloning, moving, ending them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::OpenTreeFlags;

use crate::error::Result;
use crate::sys::{last, refused};

/// `struct mount_attr` of the kernel's `include/uapi/linux/mount.h`.
#[repr(C)]
pub(super) struct RawMountAttr {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) user_namespace: u64,
}

/// Clones the mount of an open directory, without the mounts beneath, with the directory as its
/// root. The clone is in no mount namespace and ends with its last descriptor (`O_PATH`).
///
/// # Errors
/// As open_tree(2); `EPERM` without CAP_SYS_ADMIN over the mount namespace, `EINVAL` where a
/// more privileged namespace locked a mount beneath.
pub fn clone_mount(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(dir, c"", flags).map_err(refused("open_tree"))
}

/// Clones the mount on a directory, by its path.
///
/// # Errors
/// As [`clone_mount`].
pub fn clone_mount_at(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).map_err(refused("open_tree"))
}

/// How mounts below a mount propagate to its copies (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all (`MS_PRIVATE`).
    Private,
    /// From its peers to it (`MS_SLAVE`).
    Slave,
    /// Both ways (`MS_SHARED`).
    Shared,
    /// Not at all, and it cannot be bound elsewhere (`MS_UNBINDABLE`).
    Unbindable,
}

/// Sets how mounts below the mount on a path propagate.
///
/// # Errors
/// As mount(2).
pub fn set_propagation(target: &Path, how: Propagation) -> Result<()> {
    use rustix::mount::MountPropagationFlags as Flags;
    let flags = match how {
        Propagation::Private => Flags::PRIVATE,
        Propagation::Slave => Flags::DOWNSTREAM,
        Propagation::Shared => Flags::SHARED,
        Propagation::Unbindable => Flags::UNBINDABLE,
    };
    rustix::mount::mount_change(target, flags).map_err(refused("mount"))
}

impl Propagation {
    /// Sets how mounts propagate below a mount and all mounts beneath it, by its root. The mount
    /// need not be in a mount namespace.
    ///
    /// # Errors
    /// As mount_setattr(2); `ENOSYS` before Linux 5.12.
    pub fn set_tree(self, mount: BorrowedFd<'_>) -> Result<()> {
        let propagation = match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        };
        let attr = RawMountAttr { set: 0, clear: 0, propagation, user_namespace: 0 };
        set_attributes(mount, libc::AT_RECURSIVE, &attr)
    }
}

pub(super) fn set_attributes(mount: BorrowedFd<'_>, flags: i32, attr: &RawMountAttr) -> Result<()> {
    // SAFETY: the empty path is a NUL-terminated constant; the kernel reads `attr`, whose size is
    // given and which lives until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attr),
            size_of::<RawMountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last("mount_setattr")) }
}

/// Moves this process, which must have one thread, into another mount namespace: its root and
/// working directory become those of that namespace.
///
/// # Errors
/// As setns(2); `EPERM` without CAP_SYS_ADMIN over the namespace or without CAP_SYS_CHROOT.
pub fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> Result<()> {
    let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
    rustix::thread::move_into_link_name_space(namespace, kind).map_err(refused("setns"))
}

/// Which access times are updated by reads through a cloned mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessTimes {
    /// None (`MOUNT_ATTR_NOATIME`).
    pub none: bool,
    /// All (`MOUNT_ATTR_STRICTATIME`).
    pub strict: bool,
    /// None of directories (`MOUNT_ATTR_NODIRATIME`).
    pub no_dirs: bool,
}

/// Separates a cloned mount from mounts made elsewhere later (`MS_PRIVATE`) and forbids opening
/// devices through it (`MOUNT_ATTR_NODEV`). With `sealed` it also forbids all changes through it
/// (`MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOATIME`).
///
/// # Errors
/// As mount_setattr(2); `ENOSYS` before Linux 5.12.
pub fn seclude(mount: BorrowedFd<'_>, sealed: bool, times: AccessTimes) -> Result<()> {
    let mut set = if sealed { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let clear = libc::MOUNT_ATTR__ATIME;
    if sealed || times.none {
        set |= libc::MOUNT_ATTR_NOATIME;
    } else if times.strict {
        set |= libc::MOUNT_ATTR_STRICTATIME;
    }
    if times.no_dirs {
        set |= libc::MOUNT_ATTR_NODIRATIME;
    }
    let attr = RawMountAttr {
        set: set | libc::MOUNT_ATTR_NODEV,
        clear,
        propagation: libc::MS_PRIVATE,
        user_namespace: 0,
    };
    set_attributes(mount, 0, &attr)
}

/// Makes a tmpfs that is in no mount namespace and ends with its last descriptor.
///
/// # Errors
/// As fsopen(2), fsconfig(2), fsmount(2); `EPERM` without CAP_SYS_ADMIN, `EINVAL` for a size or
/// mode that tmpfs does not take.
pub fn tmpfs(size: Option<&str>, mode: Option<u32>) -> Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context =
        rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("fsopen"))?;
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).map_err(refused("fsconfig"))
    };
    set("source", "lamina")?;
    if let Some(size) = size {
        set("size", size)?;
    }
    set("mode", &format!("{:o}", mode.unwrap_or(0o1777)))?;
    rustix::mount::fsconfig_create(context.as_fd()).map_err(refused("fsconfig"))?;
    rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .map_err(refused("fsmount"))
}
