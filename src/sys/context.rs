//! Mounts of file systems on block devices, made by a context of parameters (fsopen(2)).
//!
//! The mount is in no mount namespace until [`crate::sys::bind::attach`] puts it over a place, and
//! ends with its last descriptor if that does not happen.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::Result;
use crate::sys::mount::AccessTimes;
use crate::sys::refused;
use crate::types::BindFlags;

/// Opens a context for a type of file system.
///
/// # Errors
/// As fsopen(2); `ENODEV` for a type that the kernel does not have, `EPERM` without CAP_SYS_ADMIN.
pub fn open(kind: &str) -> Result<OwnedFd> {
    rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("fsopen"))
}

/// Sets a parameter; one without a value is a flag.
///
/// # Errors
/// As fsconfig(2); `EINVAL` for what the file system does not take, [`message`] says why.
pub fn set(context: BorrowedFd<'_>, key: &str, value: Option<&str>) -> Result<()> {
    let done = match value {
        Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
        None => rustix::mount::fsconfig_set_flag(context, key),
    };
    done.map_err(refused("fsconfig"))
}

/// Opens the file system on the source, or takes the one that is mounted from it already with the
/// parameters that it has.
///
/// # Errors
/// As fsconfig(2) with `FSCONFIG_CMD_CREATE`; [`message`] says why.
pub fn create(context: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::fsconfig_create(context).map_err(refused("fsconfig"))
}

/// Makes a mount of the file system that a context created.
///
/// # Errors
/// As fsmount(2).
pub fn mount(context: BorrowedFd<'_>, flags: BindFlags, times: AccessTimes) -> Result<OwnedFd> {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.nosuid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.nodev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, flags.noexec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOATIME, times.none);
    attributes.set(MountAttrFlags::MOUNT_ATTR_STRICTATIME, times.strict && !times.none);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODIRATIME, times.no_dirs);
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(refused("fsmount"))
}

/// Returns the next message of the kernel about a context, without its level; `None` if there is
/// none.
///
/// # Errors
/// As read(2) of the context, but for `ENODATA`.
pub fn message(context: BorrowedFd<'_>) -> Result<Option<String>> {
    // The longest message (`struct fc_log` of the kernel's fs/fs_context.c has formatted text).
    let mut buffer = [0; 1024];
    match rustix::io::retry_on_intr(|| rustix::io::read(context, &mut buffer)) {
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(errno) => Err(refused("read")(errno)),
        Ok(len) => {
            let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
            // "e ", "w " or "i " in front is the level.
            let text = text.trim_end();
            Ok(Some(text.get(2..).unwrap_or(text).to_owned()))
        }
    }
}
