//! Attributes of objects of the host.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{AttrChange, Stat};

use super::cache::DirFd;

/// Changes attributes in the order size, owner, mode, times.
pub(super) fn change(dir: &DirFd, name: &[u8], change: &AttrChange) -> Result<()> {
    change_at(dir.fd(), name, change)
}

/// Changes the attributes of an open file, without its size.
pub(super) fn change_itself(file: BorrowedFd<'_>, change: &AttrChange) -> Result<()> {
    change_at(file, b"", change)
}

fn change_at(fd: BorrowedFd<'_>, name: &[u8], change: &AttrChange) -> Result<()> {
    if let Some(size) = change.size {
        set_size(fd, name, size)?;
    }
    if change.uid.is_some() || change.gid.is_some() {
        sys::file::fchownat(fd, name, change.uid, change.gid)?;
    }
    if let Some(mode) = change.mode {
        sys::file::set_mode(fd, name, mode)?;
    }
    if change.atime.is_some() || change.mtime.is_some() {
        sys::file::utimensat(fd, name, change)?;
    }
    Ok(())
}

fn set_size(dir: BorrowedFd<'_>, name: &[u8], size: u64) -> Result<()> {
    if name.is_empty() {
        return Err(Error::os("ftruncate", Errno::ISDIR));
    }
    // O_NONBLOCK: a FIFO without a reader is refused; without the flag the call would wait.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = sys::file::openat(dir, name, flags)?;
    sys::file::ftruncate(file.as_fd(), size)
}

/// Whether `relatime` keeps the access time of an object as it is (`relatime_need_update()` in the
/// kernel's fs/inode.c): the time is later than the last change and less than a day old.
pub(super) fn was_read_lately(stat: &Stat) -> bool {
    const DAY: i64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(stat.atime.secs);
    stat.atime > stat.mtime && stat.atime > stat.ctime && age < DAY
}

/// The name of the directory for calls that take no `O_PATH` descriptor by itself.
fn readable<'a>(dir: &DirFd, name: &'a [u8]) -> &'a [u8] {
    if name.is_empty() { dir.readable_name() } else { name }
}

/// Returns the value of an extended attribute, if it is set.
pub(super) fn xattr(dir: &DirFd, name: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>> {
    match sys::xattr::get(dir.fd(), readable(dir, name), key) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(Errno::NODATA) || error.is(Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the names of all extended attributes.
pub(super) fn xattr_names(dir: &DirFd, name: &[u8]) -> Result<Vec<Vec<u8>>> {
    match sys::xattr::list(dir.fd(), readable(dir, name)) {
        Ok(list) => Ok(split_names(&list)),
        Err(error) if error.is(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Splits a list of names that each end with a NUL.
pub(super) fn split_names(list: &[u8]) -> Vec<Vec<u8>> {
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Time;

    #[test]
    fn relatime_keeps_a_time_of_this_day_that_is_later_than_the_change() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ago = |secs: i64| Time { secs: i64::try_from(now).unwrap() - secs, nanos: 0 };
        let read =
            |atime, mtime, ctime| was_read_lately(&Stat { atime, mtime, ctime, ..Stat::default() });
        assert!(read(ago(10), ago(20), ago(20)));
        assert!(!read(ago(20), ago(20), ago(30)), "changed since");
        assert!(!read(ago(20), ago(30), ago(10)), "its attributes changed since");
        assert!(!read(ago(90_000), ago(100_000), ago(100_000)), "of yesterday");
    }
}
