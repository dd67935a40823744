//! What a mount keeps for its listings: entries of directories, and how its readers read.

use crate::sync::{AtomicU32, Mutex, MutexGuard};
use crate::union::api::Tell;
use crate::union::listing::kept::Kept;
use crate::union::plus::{Plus, Selection};

/// What is kept for listings.
pub(super) struct Listings {
    kept: Mutex<Kept>,
    plus: Plus,
}

impl Listings {
    /// Nothing, of at most so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { kept: Mutex::new(Kept::new(bytes)), plus: Plus::default() }
    }

    /// Count of directories whose listings are kept, and the bytes of them.
    pub(super) fn stats(&self) -> (u64, u64) {
        self.kept.lock().stats()
    }

    /// What is kept of directories.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// Which entries a request gets with their attributes: see [`Plus::listing`].
    pub(super) fn told(&self, tell: Tell, looked_up: &AtomicU32, first: bool) -> Selection {
        match tell {
            Tell::Names => Selection::default(),
            Tell::Likely => self.plus.listing(looked_up, first),
            Tell::All => self.plus.listing_ahead(first),
        }
    }

    /// Notes that an entry was looked up by itself in a directory.
    pub(super) fn looked_up(&self, looked_up: &AtomicU32) {
        self.plus.looked_up(looked_up);
    }

    /// Whether a walk through the tree reads attributes at present.
    pub(super) fn is_walked(&self) -> bool {
        self.plus.runs()
    }
}
