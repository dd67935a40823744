//! Locks of files by open file (`F_OFD_*` of fcntl(2)), and files to lock.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

use crate::error::{Errno, Error, Result};
use crate::sys::{last, refused};

/// Kinds of locks, as fcntl(2) numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// `F_RDLCK`.
    Read,
    /// `F_WRLCK`.
    Write,
    /// `F_UNLCK`.
    None,
}

/// A lock of a range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeLock {
    /// The kind of lock.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` is the end of the file, wherever that is.
    pub end: u64,
    /// The process that holds a lock that was found; 0 or -1 if the holder is not a process.
    pub pid: i32,
}

impl LockKind {
    /// Returns the kind with a number of fcntl(2).
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::F_RDLCK => Some(Self::Read),
            libc::F_WRLCK => Some(Self::Write),
            libc::F_UNLCK => Some(Self::None),
            _ => None,
        }
    }

    /// Returns the number of the kind.
    #[must_use]
    pub const fn raw(self) -> i32 {
        match self {
            Self::Read => libc::F_RDLCK,
            Self::Write => libc::F_WRLCK,
            Self::None => libc::F_UNLCK,
        }
    }
}

fn to_raw(lock: &RangeLock) -> Result<libc::flock> {
    let number = |value: u64| i64::try_from(value).map_err(|_| Error::os("fcntl", Errno::INVAL));
    let (start, end) = (number(lock.start)?, number(lock.end)?);
    let len = if end == i64::MAX { 0 } else { end - start + 1 };
    Ok(libc::flock {
        l_type: lock.kind.raw() as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    })
}

/// Sets or releases a lock of an open file, without waiting.
///
/// # Errors
/// As fcntl(2) with `F_OFD_SETLK`; `EAGAIN` while another open file holds it.
pub fn set_range(file: BorrowedFd<'_>, lock: &RangeLock) -> Result<()> {
    let raw = to_raw(lock)?;
    // SAFETY: the descriptor is borrowed for the call, which reads `raw`, a whole `struct flock`.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const raw) };
    if done == 0 { Ok(()) } else { Err(last("fcntl")) }
}

/// Returns a lock that prevents this one; of kind `None` if there is none.
///
/// # Errors
/// As fcntl(2) with `F_OFD_GETLK`.
pub fn find_range(file: BorrowedFd<'_>, lock: &RangeLock) -> Result<RangeLock> {
    let mut raw = to_raw(lock)?;
    // SAFETY: as above; the call writes `raw` too, which lives until it returns.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut raw) };
    if done != 0 {
        return Err(last("fcntl"));
    }
    let start = raw.l_start.cast_unsigned();
    let end = match raw.l_len {
        0 => i64::MAX.cast_unsigned(),
        len => start.saturating_add(len.cast_unsigned()).saturating_sub(1),
    };
    let kind = LockKind::from_raw(raw.l_type.into()).unwrap_or(LockKind::None);
    Ok(RangeLock { kind, start, end, pid: raw.l_pid })
}

/// Makes a file in memory that serves for locks only.
///
/// # Errors
/// As memfd_create(2).
pub fn anonymous() -> Result<OwnedFd> {
    rustix::fs::memfd_create("lamina-locks", MemfdFlags::CLOEXEC).map_err(refused("memfd_create"))
}
