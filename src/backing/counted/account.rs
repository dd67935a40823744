//! What may be used, and what is.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::blocks::BLOCK;
use crate::error::{Errno, Result};
use crate::types::{Limits, StatFs};

/// A size allows so many inodes at least, and one for each block.
const INODES_MIN: u64 = 1024;

/// What is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Blocks of [`BLOCK`] bytes that hold data.
    pub blocks: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Used {
    /// The sum of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

/// The account of one tree. Whatever grows is taken from it before, and given back after it shrank,
/// so what is there never exceeds the limits.
///
/// An idle account counts nothing until [`Account::begin`].
pub struct Account {
    books: Mutex<Books>,
    counts: AtomicBool,
}

struct Books {
    limits: Limits,
    used: Used,
}

impl Books {
    fn blocks_left(&self) -> u64 {
        let size = self.limits.size_bytes.map_or(u64::MAX, |bytes| bytes / BLOCK);
        size.saturating_sub(self.used.blocks)
    }

    /// The number of inodes, if any number is limited: an inode without data takes space too.
    fn inodes_max(&self) -> Option<u64> {
        let by_size = |bytes: u64| (bytes / BLOCK).max(INODES_MIN);
        self.limits.inodes.or(self.limits.size_bytes.map(by_size))
    }

    fn inodes_left(&self) -> u64 {
        self.inodes_max().map_or(u64::MAX, |max| max.saturating_sub(self.used.inodes))
    }

    fn fit(&self) -> bool {
        let blocks_max = self.limits.size_bytes.map(|bytes| bytes / BLOCK);
        blocks_max.is_none_or(|max| self.used.blocks <= max)
            && self.inodes_max().is_none_or(|max| self.used.inodes <= max)
    }
}

impl Account {
    /// An account with what is used already, which may be more than the limits.
    #[must_use]
    pub fn new(limits: Limits, used: Used) -> Self {
        Self { books: Mutex::new(Books { limits, used }), counts: AtomicBool::new(true) }
    }

    /// An account of a tree without limits, which may get some later.
    #[must_use]
    pub fn idle() -> Self {
        let account = Self::new(Limits::default(), Used::default());
        Self { counts: AtomicBool::new(false), ..account }
    }

    /// Whether it counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counts.load(Ordering::Acquire)
    }

    /// Counts from now on, beginning with what is used, unless that is more than the limits. Nobody
    /// may use the tree since what is used was found, and until this returns.
    ///
    /// # Errors
    /// What is used; it stays idle.
    pub fn begin(&self, limits: Limits, used: Used) -> std::result::Result<(), Used> {
        let mut books = self.books.lock();
        let new = Books { limits, used };
        if !new.fit() {
            return Err(new.used);
        }
        *books = new;
        self.counts.store(true, Ordering::Release);
        Ok(())
    }

    /// What is used.
    #[must_use]
    pub fn used(&self) -> Used {
        self.books.lock().used
    }

    /// The limits at present.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.books.lock().limits
    }

    /// Changes the limits, unless more is used.
    ///
    /// # Errors
    /// What is used; the limits stay.
    pub fn resize(&self, limits: Limits) -> std::result::Result<(), Used> {
        let mut books = self.books.lock();
        let new = Books { limits, used: books.used };
        if !new.fit() {
            return Err(new.used);
        }
        *books = new;
        Ok(())
    }

    /// Takes as many blocks as there are, up to a number, and returns how many.
    pub(super) fn take(&self, blocks: u64) -> u64 {
        let mut books = self.books.lock();
        let taken = blocks.min(books.blocks_left());
        books.used.blocks += taken;
        taken
    }

    /// Takes all of these blocks or none.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn take_all(&self, blocks: u64) -> Result<()> {
        let mut books = self.books.lock();
        if blocks > books.blocks_left() {
            return Err(Errno::NOSPC.into());
        }
        books.used.blocks += blocks;
        Ok(())
    }

    /// Takes one inode.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn take_inode(&self) -> Result<()> {
        let mut books = self.books.lock();
        if books.inodes_left() == 0 {
            return Err(Errno::NOSPC.into());
        }
        books.used.inodes += 1;
        Ok(())
    }

    /// Gives back.
    pub(super) fn give(&self, blocks: u64, inodes: u64) {
        let used = &mut self.books.lock().used;
        used.blocks = used.blocks.saturating_sub(blocks);
        used.inodes = used.inodes.saturating_sub(inodes);
    }

    /// Counts an inode that was left out, whatever the limit.
    pub(super) fn adopt(&self, blocks: u64) {
        let used = &mut self.books.lock().used;
        used.blocks = used.blocks.saturating_add(blocks);
        used.inodes = used.inodes.saturating_add(1);
    }

    /// Notes that a number of blocks is another one by now, whatever the limit.
    pub(super) fn correct(&self, before: u64, after: u64) {
        let used = &mut self.books.lock().used;
        used.blocks = used.blocks.saturating_sub(before).saturating_add(after);
    }

    /// The space of the host, as the limits cut it.
    pub(super) fn statfs(&self, host: StatFs) -> StatFs {
        let books = self.books.lock();
        let of_host = |blocks: u64| blocks.saturating_mul(u64::from(host.frsize.max(1))) / BLOCK;
        let total = books.limits.size_bytes.map_or(of_host(host.blocks), |bytes| bytes / BLOCK);
        let (free, ffree) = (books.blocks_left(), books.inodes_left());
        let files = books.inodes_max().unwrap_or(host.files);
        // btrfs states no number of inodes.
        let host_inodes = if host.files == 0 { u64::MAX } else { host.ffree };
        StatFs {
            blocks: total,
            bfree: free.min(of_host(host.bfree)),
            bavail: free.min(of_host(host.bavail)),
            files,
            ffree: ffree.min(host_inodes).min(files),
            bsize: BLOCK as u32,
            frsize: BLOCK as u32,
            namelen: host.namelen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(blocks: u64, inodes: u64) -> Limits {
        Limits { size_bytes: Some(blocks * BLOCK + 1), inodes: Some(inodes) }
    }

    #[test]
    fn a_limit_holds_and_may_change() {
        let account = Account::new(limits(10, 1), Used { blocks: 4, inodes: 0 });
        assert_eq!(account.take(9), 6);
        assert!(account.take_all(1).is_err());
        account.take_inode().unwrap();
        assert!(account.take_inode().is_err());
        let used = Used { blocks: 10, inodes: 1 };
        assert_eq!(account.resize(limits(9, 5)), Err(used));
        assert_eq!(account.resize(limits(20, 0)), Err(used));
        assert_eq!(account.take(1), 0);
        account.resize(limits(11, 5)).unwrap();
        account.take_all(1).unwrap();
        account.give(6, 1);
        assert_eq!(account.used(), Used { blocks: 5, inodes: 0 });
    }

    #[test]
    fn a_size_limits_inodes_too() {
        let size = Limits { size_bytes: Some(1 << 30), inodes: None };
        let account = Account::new(size, Used { blocks: 0, inodes: (1 << 18) - 1 });
        account.take_inode().unwrap();
        assert!(account.take_inode().is_err());
    }

    #[test]
    fn df_shows_the_smaller_of_limit_and_host() {
        let account = |limits, blocks| Account::new(limits, Used { blocks, inodes: 2 });
        let host = StatFs { blocks: 800, bfree: 80, bavail: 40, files: 9, ffree: 4, ..stat_fs() };
        let limited = account(limits(40, 5), 39).statfs(host);
        assert_eq!((limited.blocks, limited.bfree, limited.bavail), (40, 1, 1));
        assert_eq!((limited.files, limited.ffree), (5, 3));
        assert_eq!(account(limits(40, 5), 2).statfs(host).bavail, 10);
        let free = account(Limits::default(), 2).statfs(host);
        assert_eq!((free.blocks, free.bfree, free.files, free.ffree), (200, 20, 9, 4));
    }

    #[test]
    fn an_idle_account_begins_with_what_is_used_if_that_fits() {
        let account = Account::idle();
        assert!(!account.counts());
        let used = Used { blocks: 4, inodes: 2 };
        assert_eq!(account.begin(limits(3, 2), used), Err(used));
        assert!(!account.counts());
        account.begin(limits(5, 2), used).unwrap();
        assert!(account.counts() && account.used() == used);
        assert_eq!(account.take(2), 1);
        assert!(account.take_inode().is_err());
    }

    fn stat_fs() -> StatFs {
        StatFs { frsize: 1024, ..StatFs::default() }
    }
}
