//! Volumes whose content is a mount on `_data`.

use std::os::fd::AsFd;
use std::path::Path;

use super::driver::{Place, Usage};
use super::error::{Result, VolumeError};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;

/// Whether a file system is mounted on the content of a volume.
///
/// # Errors
/// As open(2) and statx(2).
pub(super) fn is_mounted(place: &Place) -> Result<bool> {
    let data = place.data();
    match std::fs::symlink_metadata(&data) {
        // Somebody removed it by hand.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        // A mount whose process has died has an error for every call.
        _ => {}
    }
    Ok(mount_id(place.directory())? != mount_id(&data)?)
}

/// Whether the file system that is mounted on the content of a volume has lost its process. To open
/// its root is no proof: the kernel does that by itself once it knows that the process wants it so.
pub(super) fn is_dead(place: &Place) -> bool {
    let root = sys::file::open_path(&place.data(), OFlags::PATH | OFlags::DIRECTORY);
    let asked = root.and_then(|root| sys::file::fstatfs(root.as_fd()));
    asked.is_err_and(|error| error.is(Errno::NOTCONN))
}

/// The number of the mount that a directory is on.
fn mount_id(path: &Path) -> Result<u64> {
    let opened = sys::file::open_path(path, OFlags::PATH | OFlags::DIRECTORY);
    opened.and_then(|fd| sys::file::mount_id(fd.as_fd(), b"")).map_err(VolumeError::host(path))
}

/// Whether the mount on the content of a volume shows a whole file system, not a directory of one.
///
/// # Errors
/// As open(2).
pub(super) fn is_whole(place: &Place) -> Result<bool> {
    let table = Path::new("/proc/thread-self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(VolumeError::io(table))?;
    let id = mount_id(&place.data())?.to_string();
    // Id, parent, device, root.
    let root = |line: &str| {
        let mut words = line.split(' ');
        (words.next() == Some(id.as_str())).then(|| words.nth(2) == Some("/"))
    };
    Ok(text.lines().find_map(root).unwrap_or(false))
}

/// Ends the mounts on the content of a volume. A bind mount is taken away whoever uses it, with the
/// mounts beneath: its file system stays where it is.
///
/// # Errors
/// [`VolumeError::Busy`].
pub(super) fn unmount(place: &Place, is_bind: bool) -> Result<()> {
    let directory = place.directory();
    if !is_mounted(place)? {
        return Ok(());
    }
    let opened = sys::file::find_directory(directory).map_err(VolumeError::host(directory))?;
    loop {
        let unmount = if is_bind { sys::bind::detach_at } else { sys::bind::unmount_at };
        match unmount(opened.as_fd(), b"_data") {
            Ok(()) => {}
            Err(error) if error.is(Errno::INVAL) => return Ok(()),
            Err(error) if error.is(Errno::BUSY) => {
                return Err(VolumeError::Busy { path: place.data() });
            }
            Err(error) => return Err(VolumeError::host(&place.data())(error)),
        }
    }
}

/// The space in use in the file system that is mounted on the content of a volume.
///
/// # Errors
/// As open(2) and fstatfs(2).
pub(super) fn usage(place: &Place) -> Result<Usage> {
    let data = place.data();
    let root = sys::file::find_directory(&data).map_err(VolumeError::host(&data))?;
    let found = sys::file::fstatfs(root.as_fd()).map_err(VolumeError::host(&data))?;
    let used_bytes = found.blocks.saturating_sub(found.bfree) * u64::from(found.frsize);
    let used_inodes = Some(found.files.saturating_sub(found.ffree));
    Ok(Usage { used_bytes, host_bytes: used_bytes, used_inodes })
}
