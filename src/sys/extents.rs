//! Where the data of a file is on its device (`FS_IOC_FIEMAP`, the kernel's
//! Documentation/filesystems/fiemap.rst).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

use crate::error::Result;
use crate::sys::last;

/// Extents that one call returns at most.
pub const EXTENTS_MAX: usize = 256;

/// `struct fiemap` of the kernel's `include/uapi/linux/fiemap.h`, without its extents.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct RawMap {
    head: RawHead,
    extents: [RawExtent; EXTENTS_MAX],
}

const FS_IOC_FIEMAP: Opcode = opcode::read_write::<RawHead>(b'f', 11);
/// Writes the cached data of the file first.
const FIEMAP_FLAG_SYNC: u32 = 1;
/// An extent with other files on it too.
const FIEMAP_EXTENT_SHARED: u32 = 0x2000;
/// An extent that is the last one of its file.
const FIEMAP_EXTENT_LAST: u32 = 1;
/// An extent that was merged of several pieces of data.
const FIEMAP_EXTENT_MERGED: u32 = 0x1000;

/// A part of a file that has a place on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it is in the file, in bytes.
    pub logical: u64,
    /// Where it is on the device, in bytes.
    pub physical: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it has its data at that place, byte for byte, together with other files: not
    /// compressed, inline, encrypted, without a place yet, or without data.
    pub is_shared: bool,
}

impl Extent {
    /// The end in the file.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.logical.saturating_add(self.len)
    }
}

/// The extents of a part of a file, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    /// The extents. What is between them is a hole.
    pub extents: Vec<Extent>,
    /// Where the part ends for which these are all extents.
    pub end: u64,
}

/// Returns the extents of a file in `start..end`, or of the beginning of that part if there are
/// more than [`EXTENTS_MAX`]. An extent may begin before the part and end behind it.
///
/// # Errors
/// As the ioctl; `EOPNOTSUPP` or `ENOTTY` where the file system does not tell.
pub fn extents(fd: BorrowedFd<'_>, start: u64, end: u64) -> Result<Extents> {
    let none = RawExtent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved64: [0; 2],
        flags: 0,
        reserved: [0; 3],
    };
    let head = RawHead {
        start,
        length: end.saturating_sub(start),
        flags: FIEMAP_FLAG_SYNC,
        mapped_extents: 0,
        extent_count: EXTENTS_MAX as u32,
        reserved: 0,
    };
    let mut map = RawMap { head, extents: [none; EXTENTS_MAX] };
    // SAFETY: the kernel reads the head and writes it and at most `extent_count` extents behind it,
    // for which `map` has room; it lives until the call returns. Every bit pattern is valid for it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) };
    if done != 0 {
        return Err(last("FS_IOC_FIEMAP"));
    }
    let count = usize::try_from(map.head.mapped_extents).unwrap_or(EXTENTS_MAX).min(EXTENTS_MAX);
    let found = map.extents.iter().take(count);
    let known = FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED;
    let extents: Vec<Extent> = found
        .map(|raw| Extent {
            logical: raw.logical,
            physical: raw.physical,
            len: raw.length,
            is_shared: raw.flags & FIEMAP_EXTENT_SHARED != 0 && raw.flags & !known == 0,
        })
        .collect();
    let end = match extents.last() {
        Some(last) if count == EXTENTS_MAX => last.end().min(end),
        _ => end,
    };
    Ok(Extents { extents, end })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<RawHead>(), size_of::<RawExtent>()), (32, 56));
        assert_eq!(size_of::<RawMap>(), 32 + 56 * EXTENTS_MAX);
    }

    #[test]
    fn the_extents_of_a_file_are_its_data() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 8192], 65_536).unwrap();
        let found = match extents(file.as_fd(), 0, 1 << 20) {
            Err(error) => {
                let errno = error.errno().0;
                assert!([libc::EOPNOTSUPP, libc::ENOTTY].contains(&errno), "{error}");
                return;
            }
            Ok(found) => found,
        };
        assert_eq!(found.end, 1 << 20);
        let one = found.extents.first().unwrap();
        assert!(one.logical <= 65_536 && one.end() >= 65_536 + 8192, "{one:?}");
        assert!(!one.is_shared);
        assert!(found.extents.iter().all(|one| one.end() <= 1 << 20));
    }
}
