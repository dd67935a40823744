//! The space that imports leave free, so that an endless archive stops before the disk is full for
//! everyone.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::error::StoreError;
use crate::sys::file::fstatfs;
use crate::types::StatFs;
use crate::types::size::shown;

/// Space left free on a large file system; on a small one, its size divided by the second number.
const LEFT_FREE: u64 = 256 << 20;
const LEFT_FREE_PART: u64 = 50;
/// Bytes written between two checks of the free space.
const STEP: u64 = 16 << 20;

/// Checks the free space while data is written.
pub(crate) struct Room {
    opened: OwnedFd,
    left: u64,
}

impl Room {
    /// Checks the file system of a directory.
    pub(crate) fn new(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { opened: super::files::open_dir(dir)?, left: 0 })
    }

    /// Reserves room for a number of bytes.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        let found = fstatfs(self.opened.as_fd())
            .map_err(|error| io::Error::from_raw_os_error(error.errno().0))?;
        self.left = allowed(&found).ok_or_else(|| {
            let (free, kept) = (shown(found.available_bytes()), shown(kept(&found)));
            let what = format!("{free} are free, and an import leaves {kept} to others");
            io::Error::new(ErrorKind::StorageFull, what)
        })?;
        Ok(())
    }
}

fn kept(found: &StatFs) -> u64 {
    let total = found.blocks.saturating_mul(u64::from(found.frsize));
    LEFT_FREE.min(total / LEFT_FREE_PART)
}

// The number of bytes that may be written until the next check.
fn allowed(found: &StatFs) -> Option<u64> {
    // A tmpfs without a limit and some network file systems report no block counts.
    if found.blocks == 0 {
        return Some(STEP);
    }
    let free = found.available_bytes();
    free.checked_sub(kept(found)).filter(|more| *more > 0).map(|more| more.min(STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(blocks: u64, bavail: u64) -> StatFs {
        let mut found =
            fstatfs(super::super::files::open_dir(Path::new("/")).unwrap().as_fd()).unwrap();
        (found.blocks, found.bavail, found.frsize) = (blocks, bavail, 4096);
        found
    }

    #[test]
    fn a_part_of_the_file_system_stays_free() {
        let gib = (1 << 30) / 4096;
        assert_eq!(allowed(&found(100 * gib, 50 * gib)), Some(STEP));
        assert_eq!(allowed(&found(100 * gib, gib / 4)), None);
        assert_eq!(allowed(&found(100 * gib, gib / 4 + 1)), Some(4096));
        assert_eq!(allowed(&found(0, 0)), Some(STEP));
        assert_eq!(allowed(&found(50_000, 1000)), None);
        assert_eq!(allowed(&found(50_000, 1001)), Some(4096));
    }
}
