//! The comparison of an index with the id of its layer.
//!
//! The digest of an index takes as long as its check, and the rest of a mount takes nearly as long
//! again. So a thread computes the digest in parallel. A checked index is safe to read, but nothing
//! of it may be shown before [`IdCheck::is_right`] returned true.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::store::error::StoreError;
use crate::store::id::LayerId;
use crate::sys::map::Map;

/// Limit of threads; beyond it the digest is computed when it is needed.
const THREADS_MAX: usize = 4;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The digest of an index, or the thread that computes it.
pub(super) struct IdCheck {
    path: PathBuf,
    map: Arc<Map>,
    id: LayerId,
    right: OnceLock<bool>,
    coming: Mutex<Option<JoinHandle<bool>>>,
}

impl IdCheck {
    /// Starts to compare the mapped index at a path with an id.
    pub(super) fn begin(path: PathBuf, map: &Arc<Map>, id: &LayerId) -> Self {
        let (for_thread, expected) = (Arc::clone(map), id.clone());
        let compare = move || {
            let same = is_of(&for_thread, &expected);
            THREADS.fetch_sub(1, Ordering::Relaxed);
            same
        };
        let mut coming = None;
        if THREADS.fetch_add(1, Ordering::Relaxed) < THREADS_MAX {
            coming = std::thread::Builder::new().name("digest".to_owned()).spawn(compare).ok();
        }
        if coming.is_none() {
            THREADS.fetch_sub(1, Ordering::Relaxed);
        }
        let (map, id, coming) = (Arc::clone(map), id.clone(), Mutex::new(coming));
        Self { path, map, id, right: OnceLock::new(), coming }
    }

    /// Waits for the digest, and returns whether it equals the id.
    pub(super) fn is_right(&self) -> bool {
        let wait = || match self.coming.lock().take() {
            Some(thread) => thread.join().unwrap_or(false),
            None => is_of(&self.map, &self.id),
        };
        *self.right.get_or_init(wait)
    }

    /// The error if the digest differs.
    pub(super) fn refusal(&self) -> StoreError {
        let what = "the index does not match its name".to_owned();
        StoreError::Damaged { path: self.path.clone(), what }
    }
}

fn is_of(map: &Map, id: &LayerId) -> bool {
    LayerId::of(map.as_ref()) == *id
}
