//! Extended attributes of an entry of a directory, without following links.
//!
//! Since Linux 6.13 `getxattrat` and its siblings do it in one call. On older kernels the entry is
//! named through /proc/self/fd, which needs /proc mounted. The way is determined once.
//!
//! The name `.` stands for the directory. So does an empty name, for a descriptor that is not
//! `O_PATH`; it needs no right to search the directory.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::XattrFlags as RawFlags;

use crate::error::{Errno, Error, Result};
use crate::sys::{c_name, last, refused};
use crate::types::XattrFlags;

// The same on every architecture but alpha, mips and the 32-bit x32.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// Whether this architecture numbers the calls as above.
const NUMBERED: bool = cfg!(any(
    all(target_arch = "x86_64", target_pointer_width = "64"),
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "powerpc64",
    target_arch = "loongarch64",
));

const ITSELF: libc::c_int = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;

/// Longest list of names or value that Linux keeps (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 64 * 1024;

/// Most values in an image are shorter.
const USUAL: usize = 512;

/// `struct xattr_args` of the kernel's `include/uapi/linux/xattr.h`.
#[repr(C, align(8))]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

/// Whether the kernel has the calls that take a directory.
fn has_at() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        // SAFETY: an empty name without AT_EMPTY_PATH is refused before anything is read or
        // written; list and size are null. A kernel or filter without the call returns another
        // error instead.
        let done = unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                libc::AT_FDCWD,
                c"".as_ptr(),
                0,
                std::ptr::null_mut::<u8>(),
                0usize,
            )
        };
        NUMBERED && done != 0 && last("listxattrat").is(Errno::NOENT)
    })
}

/// Returns the entry as a path through /proc whose last component is not a magic link.
fn proc_path(op: &'static str, dir: BorrowedFd<'_>, name: &[u8]) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    c_name(op, &path)
}

fn length(op: &'static str, answer: libc::c_long) -> Result<usize> {
    usize::try_from(answer).map_err(|_| last(op))
}

fn get_at(dir: BorrowedFd<'_>, name: &CString, key: &CString, buf: &mut [u8]) -> Result<usize> {
    let size = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    let args = Args { value: buf.as_mut_ptr().expose_provenance() as u64, size, flags: 0 };
    // SAFETY: both names are NUL-terminated and, like `args` and `buf`, live until the call
    // returns; the kernel writes at most `size` bytes, the length of `buf` or less, behind `value`.
    let answer = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            ITSELF,
            key.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    };
    length("getxattrat", answer)
}

/// Reads a value into `buf` and returns its length.
///
/// # Errors
/// As lgetxattr(2); `ERANGE` where `buf` is too short.
pub fn get_into(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], buf: &mut [u8]) -> Result<usize> {
    const OP: &str = "lgetxattr";
    if has_at() {
        return get_at(dir, &c_name(OP, name)?, &c_name(OP, key)?, buf);
    }
    rustix::fs::lgetxattr(proc_path(OP, dir, name)?, key, buf).map_err(refused(OP))
}

/// Returns the value of an attribute.
///
/// # Errors
/// As lgetxattr(2).
pub fn get(dir: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    let mut short = [0; USUAL];
    match get_into(dir, name, key, &mut short) {
        Ok(len) => Ok(short.get(..len).unwrap_or_default().to_vec()),
        Err(error) if error.is(Errno::RANGE) => {
            let mut long = vec![0; LONGEST];
            let len = get_into(dir, name, key, &mut long)?;
            long.truncate(len);
            long.shrink_to_fit();
            Ok(long)
        }
        Err(error) => Err(error),
    }
}

fn list_into(dir: BorrowedFd<'_>, name: &[u8], buf: &mut [u8]) -> Result<usize> {
    const OP: &str = "llistxattr";
    if !has_at() {
        return rustix::fs::llistxattr(proc_path(OP, dir, name)?, buf).map_err(refused(OP));
    }
    let name = c_name(OP, name)?;
    // SAFETY: `name` is NUL-terminated and lives until the call returns, as does `buf`; the kernel
    // writes at most the given length to it.
    let answer = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            ITSELF,
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
    length("listxattrat", answer)
}

/// Returns the names of all attributes, each ended by a NUL.
///
/// # Errors
/// As llistxattr(2).
pub fn list(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let mut short = [0; USUAL];
    match list_into(dir, name, &mut short) {
        Ok(len) => Ok(short.get(..len).unwrap_or_default().to_vec()),
        Err(error) if error.is(Errno::RANGE) => {
            let mut long = vec![0; LONGEST];
            let len = list_into(dir, name, &mut long)?;
            long.truncate(len);
            Ok(long)
        }
        Err(error) => Err(error),
    }
}

/// Sets an attribute.
///
/// # Errors
/// As lsetxattr(2).
pub fn set(
    dir: BorrowedFd<'_>,
    name: &[u8],
    key: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    const OP: &str = "lsetxattr";
    let mut bits = RawFlags::empty();
    bits.set(RawFlags::CREATE, flags.create);
    bits.set(RawFlags::REPLACE, flags.replace);
    if !has_at() {
        return rustix::fs::lsetxattr(proc_path(OP, dir, name)?, key, value, bits)
            .map_err(refused(OP));
    }
    let (name, key) = (c_name(OP, name)?, c_name(OP, key)?);
    let size = u32::try_from(value.len()).map_err(|_| Error::os(OP, Errno::TOOBIG))?;
    let start = value.as_ptr().expose_provenance() as u64;
    let args = Args { value: start, size, flags: bits.bits() };
    // SAFETY: both names are NUL-terminated and, like `args` and `value`, live until the call
    // returns; the kernel only reads, and of `value` no more than its length.
    let answer = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            ITSELF,
            key.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    };
    length("setxattrat", answer).map(drop)
}

/// Removes an attribute.
///
/// # Errors
/// As lremovexattr(2).
pub fn remove(dir: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> Result<()> {
    const OP: &str = "lremovexattr";
    if !has_at() {
        return rustix::fs::lremovexattr(proc_path(OP, dir, name)?, key).map_err(refused(OP));
    }
    let (name, key) = (c_name(OP, name)?, c_name(OP, key)?);
    // SAFETY: both names are NUL-terminated and live until the call returns; the kernel only
    // reads them.
    let answer = unsafe {
        libc::syscall(SYS_REMOVEXATTRAT, dir.as_raw_fd(), name.as_ptr(), ITSELF, key.as_ptr())
    };
    length("removexattrat", answer).map(drop)
}
