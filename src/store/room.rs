//! Space that imports leave free, so that an archive that grows without end stops before the disk
//! of everybody else is full.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::sys::file::fstatfs;
use crate::types::StatFs;

/// Left free on a large file system; a fiftieth of a small one.
const LEFT_FREE: u64 = 256 << 20;
const LEFT_FREE_PART: u64 = 50;
/// Bytes between two looks.
const STEP: u64 = 16 << 20;

/// Looks at the free space while something is written.
pub(crate) struct Room {
    dir: PathBuf,
    opened: OwnedFd,
    left: u64,
}

impl Room {
    /// The space of the file system of a directory.
    pub(crate) fn new(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { dir: dir.to_owned(), opened: super::files::open_dir(dir)?, left: 0 })
    }

    /// Takes room for so many bytes.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        let found = fstatfs(self.opened.as_fd())
            .map_err(|error| io::Error::from_raw_os_error(error.errno().0))?;
        self.left = allowed(&found).ok_or_else(|| {
            let free = found.bavail.saturating_mul(u64::from(found.frsize)) >> 20;
            let (kept, dir) = (kept(&found) >> 20, self.dir.display());
            let what = format!("{dir}: {free} MiB are free, and an import leaves {kept} MiB");
            io::Error::new(ErrorKind::StorageFull, what)
        })?;
        Ok(())
    }
}

fn kept(found: &StatFs) -> u64 {
    let total = found.blocks.saturating_mul(u64::from(found.frsize));
    LEFT_FREE.min(total / LEFT_FREE_PART)
}

// Bytes until the next look.
fn allowed(found: &StatFs) -> Option<u64> {
    // A tmpfs without a limit and some network file systems count nothing.
    if found.blocks == 0 {
        return Some(STEP);
    }
    let free = found.bavail.saturating_mul(u64::from(found.frsize));
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
