//! Decides whether a listing carries the attributes of its entries (READDIRPLUS).
//!
//! Attributes cost a lookup for each entry and are useless to a reader of names; without them, a
//! reader of attributes sends one request for each entry. So a directory is listed by names until
//! lookups follow. Then a run of directories is listed with attributes. At the end of the run, some
//! directories leave out the attributes of one file each: if that file is looked up, the next run
//! is twice as long.

use std::cell::Cell;

use crate::sync::{AtomicI32, AtomicU32, Ordering};
use crate::types::Kind;

/// Directories of the first run; below, of the longest.
const RUN: i32 = 16;
const RUN_MAX: i32 = 512;
/// Directories at the end of a run that leave out one file, until it is looked up.
const SAMPLES: i32 = 8;
/// Lookups after a listing by names that show a need for attributes.
const WANTED: u32 = 3;
/// Directories that a listing by names carries with attributes, for each request: a walk through a
/// tree looks up each directory before it enters it.
const DIRS_DETAILED: u32 = 64;

/// The reading pattern of the clients of a mount.
#[derive(Debug, Default)]
pub(super) struct Plus {
    /// Directories left in the run; below 0, the number listed after its end.
    left: AtomicI32,
    run: AtomicI32,
}

/// The entries of a listing that come with their attributes.
#[derive(Debug, Default)]
pub(super) struct Selection {
    all: bool,
    /// In a listing by names, the number of directories that still get attributes.
    dirs: Cell<u32>,
    /// In any other listing, the number of files that are still left out.
    samples: Cell<u32>,
}

impl Selection {
    /// Selects all entries.
    pub(super) fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether entries carry attributes as a rule.
    pub(super) const fn is_all(&self) -> bool {
        self.all
    }

    /// Whether an entry carries attributes.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        let (counter, last) = match (self.all, kind) {
            (true, Kind::Dir) => return true,
            (true, _) => (&self.samples, false),
            (false, Kind::Dir) => (&self.dirs, true),
            (false, _) => return false,
        };
        match counter.get().checked_sub(1) {
            Some(left) => {
                counter.set(left);
                last
            }
            None => !last,
        }
    }
}

impl Plus {
    /// Decides for a request of a listing; `first` is whether it is the first one. `looked_up`
    /// counts lookups in the directory and starts at `u32::MAX`.
    pub(super) fn listing(&self, looked_up: &AtomicU32, first: bool) -> Selection {
        let left = self.left.load(Ordering::Relaxed);
        let runs = self.runs() && left > -SAMPLES;
        match (runs, first) {
            (true, true) => {
                self.left.fetch_sub(1, Ordering::Relaxed);
                if left <= 0 {
                    // One lookup is enough to show the need.
                    looked_up.store(WANTED - 1, Ordering::Relaxed);
                }
                Selection {
                    all: true,
                    samples: Cell::new(u32::from(left <= 0)),
                    ..Selection::default()
                }
            }
            (true, false) => Selection::everything(),
            (false, _) => {
                if first {
                    self.run.store(0, Ordering::Relaxed);
                    looked_up.store(0, Ordering::Relaxed);
                }
                Selection { dirs: Cell::new(DIRS_DETAILED), ..Selection::default() }
            }
        }
    }

    /// [`Plus::listing`] for a thread that lists ahead of a reader: its directories are in the run.
    pub(super) fn listing_ahead(&self, first: bool) -> Selection {
        if first && self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
        Selection::everything()
    }

    /// Notes that an entry was looked up by itself in a directory.
    pub(super) fn looked_up(&self, looked_up: &AtomicU32) {
        let seen = looked_up.load(Ordering::Relaxed);
        if seen >= WANTED {
            return;
        }
        looked_up.store(seen + 1, Ordering::Relaxed);
        if seen + 1 == WANTED {
            let run = (self.run.load(Ordering::Relaxed) * 2).clamp(RUN, RUN_MAX);
            self.run.store(run, Ordering::Relaxed);
            self.left.store(run, Ordering::Relaxed);
        }
    }

    /// Whether directories are listed with attributes now.
    pub(super) fn runs(&self) -> bool {
        self.run.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists directories of `files` files; each entry without attributes is looked up if `stats`.
    /// Returns the number of entries with attributes, and the number looked up.
    fn walk(plus: &Plus, dirs: usize, files: usize, stats: bool) -> (usize, usize) {
        let (mut detailed, mut looked_up) = (0, 0);
        for _ in 0..dirs {
            let counter = AtomicU32::new(u32::MAX);
            let wants = plus.listing(&counter, true);
            let here = (0..files).filter(|_| wants.wants(Kind::File)).count();
            detailed += here;
            if stats {
                looked_up += files - here;
                (here..files).for_each(|_| plus.looked_up(&counter));
            }
            // The end of the listing.
            plus.listing(&counter, false);
        }
        (detailed, looked_up)
    }

    #[test]
    fn a_reader_of_names_gets_no_attributes() {
        assert_eq!(walk(&Plus::default(), 1000, 10, false), (0, 0));
    }

    #[test]
    fn a_reader_of_attributes_looks_up_little() {
        let plus = Plus::default();
        let (detailed, looked_up) = walk(&plus, 5000, 10, true);
        assert_eq!(detailed + looked_up, 50_000);
        // The first directory, and one file at the end of each run.
        assert_eq!(looked_up, 10 + 13);
        let (_, looked_up) = walk(&plus, 1000, 1, true);
        assert!(looked_up <= 3, "{looked_up}");
    }

    #[test]
    fn directories_without_files_end_no_run_before_others_are_seen() {
        let plus = Plus::default();
        walk(&plus, 17, 10, true);
        walk(&plus, 4, 0, true);
        assert_eq!(walk(&plus, 1, 10, true), (9, 1));
    }

    #[test]
    fn attributes_stop_when_lookups_stop() {
        let plus = Plus::default();
        walk(&plus, 5000, 10, true);
        let (detailed, _) = walk(&plus, 5000, 10, false);
        assert!(detailed <= 10 * (RUN_MAX + SAMPLES) as usize, "{detailed}");
        assert_eq!(walk(&plus, 1000, 10, false), (0, 0));
        // The reader begins again.
        assert_eq!(walk(&plus, 17, 10, true), (16 * 10, 10));
    }

    #[test]
    fn a_directory_that_was_never_listed_says_nothing() {
        let plus = Plus::default();
        let counter = AtomicU32::new(u32::MAX);
        (0..100).for_each(|_| plus.looked_up(&counter));
        assert!(!plus.runs());
    }

    #[test]
    fn a_walk_by_names_gets_attributes_of_directories() {
        let selection = Plus::default().listing(&AtomicU32::new(u32::MAX), true);
        assert!(!selection.wants(Kind::File) && selection.wants(Kind::Dir));
        assert_eq!((0..100).filter(|_| selection.wants(Kind::Dir)).count(), 63);
    }
}
