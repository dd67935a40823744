//! System calls that neither std nor rustix offers safely: the only unsafe code of these tests.
#![allow(unsafe_code, reason = "one call each, argued where it is made")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file handle of `name_to_handle_at`: header and opaque bytes.
#[derive(Clone)]
pub struct Handle(Vec<u32>);

const HANDLE_BYTES: u32 = 128;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a test path")
}

/// Returns the handle of `path`, not following a link.
pub fn name_to_handle(path: &Path) -> io::Result<Handle> {
    let mut buffer = vec![0u32; 2 + HANDLE_BYTES as usize / 4];
    buffer[0] = HANDLE_BYTES;
    let name = c_path(path);
    let mut mount_id = 0;
    // SAFETY: the buffer holds the 8-byte header and the HANDLE_BYTES announced in it, is aligned
    // for u32, and outlives the call, as do name and mount_id.
    let result = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            &raw mut mount_id,
            0,
        )
    };
    checked(result).map(|_| Handle(buffer))
}

/// Opens the file of `handle` on the file system of `mount`.
pub fn open_by_handle(mount: BorrowedFd<'_>, handle: &Handle, flags: i32) -> io::Result<OwnedFd> {
    let mut buffer = handle.0.clone();
    // SAFETY: the buffer is a handle that the kernel filled in; it is not changed by the call.
    let result =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), buffer.as_mut_ptr().cast(), flags) };
    // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes an open-file-description lock on a range without waiting.
pub fn ofd_lock(file: BorrowedFd<'_>, kind: i32, start: i64, len: i64) -> io::Result<()> {
    // SAFETY: flock is plain data for which all zeroes is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).expect("a lock kind");
    lock.l_whence = 0;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: F_OFD_SETLK reads one flock structure, which outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    checked(result).map(drop)
}

/// The number of the ioctl `FS_IOC_FSGETXATTR`.
const FSGETXATTR: libc::c_ulong = 0x801c_581f;
/// The number of the ioctl `FS_IOC_FSSETXATTR`.
const FSSETXATTR: libc::c_ulong = 0x401c_5820;

/// `struct fsxattr` of the kernel's `fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct FsXattr {
    pub xflags: u32,
    pub extent_size: u32,
    pub extents: u32,
    pub project: u32,
    pub cow_extent_size: u32,
    pad: [u8; 8],
}

/// Reads the extended flags of an open file.
pub fn fs_xattr(file: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut attr = FsXattr::default();
    // SAFETY: the request writes one fsxattr, which is what attr is laid out as.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FSGETXATTR, &raw mut attr) };
    checked(result).map(|_| attr)
}

/// Writes the extended flags of an open file.
pub fn set_fs_xattr(file: BorrowedFd<'_>, attr: &FsXattr) -> io::Result<()> {
    // SAFETY: the request reads one fsxattr, which is what attr is laid out as.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FSSETXATTR, &raw const *attr) };
    checked(result).map(drop)
}

/// A mapping of the first bytes of a file.
pub struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    /// Maps `len` bytes, shared or private, read-only or writable.
    pub fn new(file: BorrowedFd<'_>, len: usize, shared: bool, write: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: the kernel chooses the address, so no memory of ours is replaced.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { at: at.cast(), len })
    }

    /// Copies `len` bytes at `offset` out of the mapping.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len, "within the mapping");
        (offset..offset + len)
            // SAFETY: below self.len by the assertion; volatile since others may write it.
            .map(|index| unsafe { self.at.add(index).read_volatile() })
            .collect()
    }

    /// Writes into the mapping, which must have been made for writing.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "within the mapping");
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: below self.len by the assertion, mapped for writing by the caller's word.
            unsafe { self.at.add(offset + index).write_volatile(*byte) };
        }
    }

    /// Waits until written bytes have reached the file.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: exactly the mapping made in `new`.
        checked(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, of which no reference leaves this type.
        let result = unsafe { libc::munmap(self.at.cast(), self.len) };
        assert_eq!(result, 0, "munmap of our own mapping");
    }
}

/// Gives the calling thread a mount namespace of its own.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: without CLONE_FILES no descriptor table is split; only mounts and the thread's
    // root, working directory and umask become its own.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}
