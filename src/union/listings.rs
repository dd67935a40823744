//! State of the listings of a mount: entries of directories, and the reading pattern of clients.

use crate::sync::{AtomicU32, Mutex, MutexGuard};
use crate::union::api::Detail;
use crate::union::listing::kept::Kept;
use crate::union::plus::{Plus, Selection};

/// State of listings.
pub(super) struct Listings {
    kept: Mutex<Kept>,
    plus: Plus,
}

impl Listings {
    /// Makes an empty state that keeps at most `bytes` bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { kept: Mutex::new(Kept::new(bytes)), plus: Plus::default() }
    }

    /// The number of directories whose listings are kept, and their bytes.
    pub(super) fn stats(&self) -> (u64, u64) {
        self.kept.lock().stats()
    }

    /// The kept state of directories.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// Returns which entries of a request come with their attributes: see [`Plus::listing`].
    pub(super) fn selection(
        &self,
        detail: Detail,
        looked_up: &AtomicU32,
        first: bool,
    ) -> Selection {
        match detail {
            Detail::Names => Selection::default(),
            Detail::Likely => self.plus.listing(looked_up, first),
            Detail::All => self.plus.listing_ahead(first),
        }
    }

    /// Notes that an entry was looked up by itself in a directory.
    pub(super) fn looked_up(&self, looked_up: &AtomicU32) {
        self.plus.looked_up(looked_up);
    }

    /// Whether a walk through the tree reads attributes now.
    pub(super) fn is_walked(&self) -> bool {
        self.plus.runs()
    }
}
