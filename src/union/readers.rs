//! Present readers of a directory, for the listing that the kernel caches.
//!
//! The kernel keeps the entries of a listing in the page cache. It compares the version of the
//! directory only with that of the reader that began while nothing was cached
//! (`fuse_readdir_cached()` in fs/fuse/readdir.c). A reply that was made before a change, and
//! arrives after another reader began behind the change, is cached as of the new version
//! (`fuse_add_dirent_to_cache()` checks only the position). All later readers would see it until
//! the next change. So the cached listing is dropped when a reader comes to the end of a directory
//! that changed under one of its readers: nothing is added behind the end, and a listing without
//! its first page is read again.

use crate::sync::Mutex;

/// After this many readings to the end, a reader that has not reached it is counted as stopped.
const STOPPED: u32 = 64;

#[derive(Debug, Default)]
struct State {
    /// Readers that have not come to the end.
    open: u32,
    /// The version of the directory when the first of them began.
    oldest: u64,
    /// Readers that have come to the end since.
    ended: u32,
}

/// Readers of a directory.
#[derive(Debug, Default)]
pub struct Readers(Mutex<State>);

impl Readers {
    /// Counts a reader that begins with this version of the directory.
    pub fn begin(&self, version: u64) {
        let mut state = self.0.lock();
        if state.open == 0 {
            *state = State { open: 0, oldest: version, ended: 0 };
        }
        state.open = state.open.saturating_add(1);
    }

    /// Whether no more than one reader is open.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.0.lock().open <= 1
    }

    /// Counts a reader that comes to the end. Returns whether the kernel may have cached entries of
    /// different versions.
    #[must_use]
    pub fn end(&self, version: u64) -> bool {
        let mut state = self.0.lock();
        if state.open == 0 {
            // The reader was counted as stopped, or did not begin at the start.
            return true;
        }
        state.open -= 1;
        state.ended += 1;
        if state.ended >= STOPPED {
            state.open = 0;
        }
        state.oldest != version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_under_any_reader_counts_for_all_until_the_last_is_done() {
        let readers = Readers::default();
        readers.begin(1);
        assert!(!readers.end(1));
        readers.begin(1);
        readers.begin(2);
        assert!(readers.end(2), "the first one began before the change");
        assert!(readers.end(2), "the kernel may have taken its entries last");
        readers.begin(2);
        assert!(!readers.end(2));
    }

    #[test]
    fn a_change_behind_the_start_counts() {
        let readers = Readers::default();
        readers.begin(1);
        assert!(readers.end(2));
    }

    #[test]
    fn a_reader_that_stops_counts_for_a_while() {
        let readers = Readers::default();
        readers.begin(1);
        for turn in 0..STOPPED {
            readers.begin(2);
            assert!(readers.end(2), "{turn}");
        }
        readers.begin(2);
        assert!(!readers.end(2));
        assert!(readers.end(2), "it did not stop after all");
    }
}
