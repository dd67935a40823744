//! State of the open files of a mount, and its access to the kernel.
//!
//! Descriptors, registrations and pins are kept in bounded lists: the least recently used is
//! dropped first. The state of each file is in its node ([`crate::union::body::FileState`]).

use std::sync::Arc;

use lru::LruCache;

use crate::error::{Errno, Result};
use crate::sync::{AtomicBool, AtomicU64, Mutex, OnceLock, Ordering};
use crate::types::{Access, Kind, NodeId, Stat};
use crate::union::api::Kernel;
use crate::union::body::{Body, FIRST_GRAFT, FileState, Io, Life, Place, UPPER};
use crate::union::layer::File;
use crate::union::table::Table;
use crate::union::unlinked::RecentlyUnlinked;

/// Files below this size are read through the page cache of the mount: passthrough gains nothing
/// there, and reads through an old descriptor see the data that is written after a copy-up.
pub(super) const PASSTHROUGH_MIN: u64 = 64 * 1024;

/// The largest number of descriptors, and of registrations, that are kept.
const FILES: usize = 256;
/// The largest number of files without an open handle that pins keep. The kernel forgets such a
/// file at once, unless it is about to open it.
const PINS: usize = 256;
/// In a mount with grafts, each handle has a number of its own above these bits.
const NUMBER_SHIFT: u32 = 8;

type Recent = Mutex<LruCache<NodeId, ()>>;

/// State kept for open files.
pub(super) struct Handles {
    kernel: OnceLock<Arc<dyn Kernel>>,
    passthrough_off: AtomicBool,
    files: Recent,
    ids: Recent,
    pins: Recent,
    live_writers: AtomicU64,
    unlinked: RecentlyUnlinked,
    numbers: AtomicU64,
    opens: AtomicU64,
    passthrough_opens: AtomicU64,
}

fn recent(capacity: usize) -> Recent {
    let capacity = std::num::NonZeroUsize::new(capacity).unwrap_or(std::num::NonZeroUsize::MIN);
    Mutex::new(LruCache::new(capacity))
}

/// Puts a node first; returns the node that it displaces.
fn evict(list: &Recent, id: NodeId) -> Option<NodeId> {
    let evicted = list.lock().push(id, ());
    evicted.map(|(old, ())| old).filter(|old| *old != id)
}

/// Whether a file of a lower layer is small enough for the page cache; it never changes.
pub(super) const fn is_small_lower(layer: u16, stat: &Stat) -> bool {
    let lower = layer != UPPER && layer < FIRST_GRAFT;
    lower && matches!(stat.kind(), Kind::File) && stat.size < PASSTHROUGH_MIN
}

impl Handles {
    /// Makes the state of a mount without a kernel.
    pub(super) fn new() -> Self {
        Self {
            kernel: OnceLock::new(),
            passthrough_off: AtomicBool::new(true),
            files: recent(FILES),
            ids: recent(FILES),
            pins: recent(PINS),
            live_writers: AtomicU64::new(0),
            unlinked: RecentlyUnlinked::default(),
            numbers: AtomicU64::new(1),
            opens: AtomicU64::new(0),
            passthrough_opens: AtomicU64::new(0),
        }
    }

    /// Sets the kernel; with `passthrough` it serves files by itself.
    pub(super) fn set_kernel(&self, kernel: Arc<dyn Kernel>, passthrough: bool) {
        if self.kernel.set(kernel).is_err() {
            tracing::debug!("the kernel was set already");
        }
        self.passthrough_off.store(!passthrough, Ordering::Relaxed);
    }

    /// Returns the kernel, if there is one.
    pub(super) fn kernel(&self) -> Option<&dyn Kernel> {
        self.kernel.get().map(AsRef::as_ref)
    }

    /// Returns the kernel, if it serves files by itself.
    pub(super) fn passthrough(&self) -> Option<&dyn Kernel> {
        self.kernel().filter(|_| !self.is_passthrough_off())
    }

    /// Whether the kernel serves no files by itself.
    pub(super) fn is_passthrough_off(&self) -> bool {
        self.passthrough_off.load(Ordering::Relaxed)
    }

    /// Notifies the kernel that attributes of a node changed.
    pub(super) fn changed(&self, id: NodeId) {
        if let Some(kernel) = self.kernel() {
            kernel.changed(id);
        }
    }

    /// The number of files opened so far, and of those that the kernel serves.
    pub(super) fn opened(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.opens), read(&self.passthrough_opens))
    }

    /// Counts an open.
    pub(super) fn count_open(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an open that the kernel serves.
    pub(super) fn count_passthrough(&self) {
        self.passthrough_opens.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a unique number for a handle, above the bits that describe the handle.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) << NUMBER_SHIFT
    }

    /// Counts a handle through which the kernel writes by itself.
    pub(super) fn add_writer(&self) {
        self.live_writers.fetch_add(1, Ordering::Relaxed);
    }

    /// Reverses [`Handles::add_writer`].
    pub(super) fn drop_writer(&self) {
        self.live_writers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the kernel writes any file by itself.
    pub(super) fn has_writers(&self) -> bool {
        self.live_writers.load(Ordering::Relaxed) > 0
    }

    /// Notes that a file is about to lose one of its names.
    pub(super) fn note_unlinked(&self, id: NodeId) {
        if let Some(kernel) = self.kernel() {
            self.unlinked.note(id, kernel.now_ms());
        }
    }

    /// Whether a file lost one of its names a moment ago.
    pub(super) fn lost_name(&self, id: NodeId) -> bool {
        self.kernel().is_some_and(|kernel| self.unlinked.is_recent(id, || kernel.now_ms()))
    }

    /// Registers the file at a place with the kernel; `None` if that is refused.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn register(&self, place: &Place) -> Result<Option<u32>> {
        let Some(kernel) = self.kernel() else { return Ok(None) };
        let file = place.dir.open(&place.name, Access::Path)?;
        if file.fd().is_none() {
            return Ok(None);
        }
        match kernel.register(file.as_ref()) {
            Ok(id) => Ok(Some(id)),
            Err(error) => {
                // Refused for the whole mount (no privilege) or for this file system (stacked).
                tracing::info!(%error, "passthrough is off");
                file.not_registered();
                if error.is(Errno::PERM) || error.is(Errno::OPNOTSUPP) {
                    self.passthrough_off.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
        }
    }

    /// Registers an open file with the kernel, if it serves files by itself and accepts this one.
    pub(super) fn register_open(&self, file: &dyn File) -> Option<u32> {
        self.passthrough()?.register(file).ok()
    }

    /// Closes a registration.
    pub(super) fn unregister(&self, backing_id: u32) {
        if let Some(kernel) = self.kernel() {
            kernel.release(backing_id);
        }
    }

    /// Closes the registration of a file.
    pub(super) fn release_id(&self, state: &mut FileState) {
        if let Io::Passthrough { id, .. } = state.io {
            self.unregister(id);
        }
        state.io = Io::Idle;
    }

    /// Releases the resources of a state outside of memory, when its node is forgotten.
    pub(super) fn release_state(&self, state: &mut FileState) {
        self.release_id(state);
        state.file = None;
        if state.life.is_parked()
            && let Some(place) = state.place.take()
            && let Err(error) = place.dir.unlink(&place.name)
        {
            tracing::warn!(%error, "a removed file stays until the next mount");
        }
    }

    /// Takes back lookups of a node, and releases the resources of the nodes that are dropped.
    pub(super) fn forget(&self, table: &Table, id: NodeId, count: u64) {
        for body in table.forget(id, count) {
            table.with_forgotten(&body, |state| self.release_state(state));
        }
    }

    /// Notes that a registration is kept without an open handle, since the next open is likely to
    /// need it. If there are too many, the least recently used one is closed.
    pub(super) fn note_id(&self, table: &Table, id: NodeId) {
        let Some(old) = evict(&self.ids, id) else { return };
        table.try_with_file(old, |held| {
            if held.state.opens == 0 {
                self.release_id(held.state);
            }
        });
        table.drop_body(old, Body::is_idle);
    }

    /// Notes that a descriptor is kept. If there are too many, the least recently used one is
    /// closed.
    pub(super) fn note_file(&self, table: &Table, id: NodeId) {
        let Some(old) = evict(&self.files, id) else { return };
        table.try_with_file(old, |held| held.state.file = None);
    }

    /// Notes that a pin keeps a file without an open handle. If there are too many, the oldest is
    /// dropped.
    pub(super) fn note_pin(&self, table: &Table, id: NodeId) {
        let Some(old) = evict(&self.pins, id) else { return };
        table.try_with_file(old, |held| {
            let next = match held.state.life {
                Life::Kept => {
                    Life::Gone(table.stat_state(&held.node, held.state).unwrap_or_default())
                }
                Life::Detached => Life::Stale,
                _ => return,
            };
            if held.state.opens == 0 && held.state.pinned {
                held.state.life = next;
                held.state.place = None;
                held.state.file = None;
                held.state.pinned = false;
            }
        });
    }
}
