//! Read-only mappings of files that never change.

use std::fs::File;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Errno, Error, Result};
use crate::sys::refused;

/// A whole file, mapped for reading.
///
/// The file must not be truncated while it is mapped: a read behind its end is SIGBUS. So it is
/// for files in directories that are ours alone and that are never written again.
pub struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is private, read-only and owned by the value.
unsafe impl Send for Map {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a file.
    ///
    /// # Errors
    /// As mmap(2); `EINVAL` for an empty file.
    pub fn new(file: &File) -> Result<Self> {
        let len = file.metadata().map_err(|error| Error::os("fstat", errno(&error)))?.len();
        let len = usize::try_from(len).map_err(|_| Error::os("mmap", Errno::FBIG))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)
        }
        .map_err(refused("mmap"))?;
        let start = NonNull::new(start.cast()).ok_or(Error::os("mmap", Errno::NOMEM))?;
        Ok(Self { start, len })
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(Errno::IO.0))
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of the mapping, which lives as long as the value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody borrows from it any more.
        let done = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        if let Err(error) = done {
            tracing::warn!(%error, "a mapping stays");
        }
    }
}
