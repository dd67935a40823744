//! Whether an index is the one that the id of its layer names.
//!
//! The check of an index takes as long as its digest, and what a mount does after it nearly as
//! long again. So a thread computes the digest meanwhile. An index that was checked is safe to
//! read, but nothing of it may be shown before [`Digest::is_right`] was asked.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::{LayerId, StoreError};
use crate::sys::map::Map;

/// The digest of an index, or the thread that computes it.
pub(super) struct Digest {
    path: PathBuf,
    right: OnceLock<bool>,
    coming: Mutex<Option<JoinHandle<bool>>>,
}

impl Digest {
    /// Begins to compare the index at a path, which is mapped, with an id.
    pub(super) fn begin(path: PathBuf, map: &Arc<Map>, id: &LayerId) -> Self {
        let (right, coming) = (OnceLock::new(), Mutex::new(None));
        let (map, expected) = (Arc::clone(map), id.clone());
        let compare = move || LayerId::of((*map).as_ref()) == expected;
        let again = compare.clone();
        match std::thread::Builder::new().name("digest".to_owned()).spawn(compare) {
            Ok(thread) => *coming.lock() = Some(thread),
            Err(_) => drop(right.set(again())),
        }
        Self { path, right, coming }
    }

    /// Waits for the answer.
    pub(super) fn is_right(&self) -> bool {
        let wait = || {
            let thread = self.coming.lock().take();
            thread.is_some_and(|thread| thread.join().unwrap_or(false))
        };
        *self.right.get_or_init(wait)
    }

    /// What to say where it is not.
    pub(super) fn refusal(&self) -> StoreError {
        let what = "the index is not the one that its name says".to_owned();
        StoreError::Damaged { path: self.path.clone(), what }
    }
}
