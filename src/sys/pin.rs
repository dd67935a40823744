//! Calls on an object that only an `O_PATH` descriptor leads to, through /proc/self/fd.
//!
//! The link there leads to the object itself, even if its names are gone: no path is resolved.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, XattrFlags as RawFlags};

use crate::error::{Errno, Result};
use crate::sys::file::OFlags;
use crate::sys::refused;
use crate::types::XattrFlags;

/// Longest list of names or value that Linux keeps (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 64 * 1024;
/// Most lists and values are shorter.
const USUAL: usize = 512;

fn path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens the object.
///
/// # Errors
/// As open(2).
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    let open = || rustix::fs::open(path(fd), flags | OFlags::CLOEXEC, Mode::empty());
    rustix::io::retry_on_intr(open).map_err(refused("open"))
}

/// Gives the object a name. `ENOENT` if it has lost its last name.
///
/// # Errors
/// As linkat(2).
pub fn link(fd: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::linkat(CWD, path(fd), to, name, AtFlags::SYMLINK_FOLLOW).map_err(refused("linkat"))
}

fn read(
    op: &'static str,
    read: impl Fn(&mut [u8]) -> std::result::Result<usize, rustix::io::Errno>,
) -> Result<Vec<u8>> {
    let mut value = vec![0; USUAL];
    let len = match read(&mut value).map_err(refused(op)) {
        Err(error) if error.is(Errno::RANGE) => {
            value = vec![0; LONGEST];
            read(&mut value).map_err(refused(op))?
        }
        len => len?,
    };
    value.truncate(len);
    Ok(value)
}

/// Returns the value of an extended attribute.
///
/// # Errors
/// As getxattr(2).
pub fn xattr(fd: BorrowedFd<'_>, key: &[u8]) -> Result<Vec<u8>> {
    read("getxattr", |buf| rustix::fs::getxattr(path(fd), key, buf))
}

/// Returns the names of all extended attributes, each ended by a NUL.
///
/// # Errors
/// As listxattr(2).
pub fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    read("listxattr", |buf| rustix::fs::listxattr(path(fd), buf))
}

/// Sets an extended attribute.
///
/// # Errors
/// As setxattr(2).
pub fn set_xattr(fd: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    let mut bits = RawFlags::empty();
    bits.set(RawFlags::CREATE, flags.create);
    bits.set(RawFlags::REPLACE, flags.replace);
    rustix::fs::setxattr(path(fd), key, value, bits).map_err(refused("setxattr"))
}

/// Removes an extended attribute.
///
/// # Errors
/// As removexattr(2).
pub fn remove_xattr(fd: BorrowedFd<'_>, key: &[u8]) -> Result<()> {
    rustix::fs::removexattr(path(fd), key).map_err(refused("removexattr"))
}
