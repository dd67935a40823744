//! What a mount keeps of its open files, and its access to the kernel.
//!
//! Descriptors, registrations and pins are kept in bounded lists: the least recently used goes
//! first. The state of each file itself is that of its node ([`crate::union::body::FileState`]).

use std::sync::Arc;

use lru::LruCache;

use crate::error::{Errno, Result};
use crate::sync::{AtomicBool, AtomicU64, Mutex, OnceLock, Ordering};
use crate::types::{Access, Kind, NodeId, Stat};
use crate::union::api::Kernel;
use crate::union::body::{Body, FIRST_GRAFT, FileState, Io, Life, Place, UPPER};
use crate::union::layer::File;
use crate::union::shed::Shed;
use crate::union::table::Table;

/// Files below this size are read through the page cache of the mount: passthrough gains nothing
/// there, and an old descriptor sees what is written after a copy-up.
pub(super) const PASSTHROUGH_MIN: u64 = 64 * 1024;

/// Most descriptors, and most registrations, that are kept.
const FILES: usize = 256;
/// Most files without an open handle that pins keep. The kernel forgets such a file at once,
/// unless it is about to be opened.
const PINS: usize = 256;
/// Handles of a mount with grafts carry a number of their own above these bits.
const NUMBER_SHIFT: u32 = 8;

type Recent = Mutex<LruCache<NodeId, ()>>;

/// What is kept of open files.
pub(super) struct Handles {
    kernel: OnceLock<Arc<dyn Kernel>>,
    passthrough_off: AtomicBool,
    files: Recent,
    ids: Recent,
    pins: Recent,
    live_writers: AtomicU64,
    shed: Shed,
    numbers: AtomicU64,
    opens: AtomicU64,
    passthrough_opens: AtomicU64,
}

fn recent(capacity: usize) -> Recent {
    let capacity = std::num::NonZeroUsize::new(capacity).unwrap_or(std::num::NonZeroUsize::MIN);
    Mutex::new(LruCache::new(capacity))
}

/// Puts a node first; returns the one that has to go for it.
fn evict(list: &Recent, id: NodeId) -> Option<NodeId> {
    let evicted = list.lock().push(id, ());
    evicted.map(|(old, ())| old).filter(|old| *old != id)
}

/// Whether a file of a lower layer, which never changes, is read through the page cache.
pub(super) const fn is_small_lower(layer: u16, stat: &Stat) -> bool {
    let lower = layer != UPPER && layer < FIRST_GRAFT;
    lower && matches!(stat.kind(), Kind::File) && stat.size < PASSTHROUGH_MIN
}

impl Handles {
    /// Of a mount without a kernel.
    pub(super) fn new() -> Self {
        Self {
            kernel: OnceLock::new(),
            passthrough_off: AtomicBool::new(true),
            files: recent(FILES),
            ids: recent(FILES),
            pins: recent(PINS),
            live_writers: AtomicU64::new(0),
            shed: Shed::default(),
            numbers: AtomicU64::new(1),
            opens: AtomicU64::new(0),
            passthrough_opens: AtomicU64::new(0),
        }
    }

    /// Uses the kernel from now on; with `passthrough` it serves files by itself.
    pub(super) fn set_kernel(&self, kernel: Arc<dyn Kernel>, passthrough: bool) {
        if self.kernel.set(kernel).is_err() {
            tracing::debug!("the kernel was set already");
        }
        self.passthrough_off.store(!passthrough, Ordering::Relaxed);
    }

    /// The kernel, if there is one.
    pub(super) fn kernel(&self) -> Option<&dyn Kernel> {
        self.kernel.get().map(AsRef::as_ref)
    }

    /// The kernel, if it serves files by itself.
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

    /// Files opened so far, and those of them that the kernel serves.
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

    /// A number that makes a handle one of its own, above the bits that say what it is.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) << NUMBER_SHIFT
    }

    /// Counts a handle through which the kernel writes by itself.
    pub(super) fn add_writer(&self) {
        self.live_writers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back [`Handles::add_writer`].
    pub(super) fn drop_writer(&self) {
        self.live_writers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the kernel writes any file by itself at present.
    pub(super) fn has_writers(&self) -> bool {
        self.live_writers.load(Ordering::Relaxed) > 0
    }

    /// Notes that a file is about to lose one of its names.
    pub(super) fn note_shed(&self, id: NodeId) {
        if let Some(kernel) = self.kernel() {
            self.shed.note(id, kernel.now_ms());
        }
    }

    /// Whether a file lost one of its names a moment ago.
    pub(super) fn lost_name(&self, id: NodeId) -> bool {
        self.kernel().is_some_and(|kernel| self.shed.is_recent(id, || kernel.now_ms()))
    }

    /// Registers the file at a place with the kernel; `None` where that is refused.
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

    /// Registers an open file with the kernel, if it serves files by itself and takes this one.
    pub(super) fn register_open(&self, file: &dyn File) -> Option<u32> {
        self.passthrough()?.register(file).ok()
    }

    /// Takes a registration back.
    pub(super) fn unregister(&self, backing_id: u32) {
        if let Some(kernel) = self.kernel() {
            kernel.release(backing_id);
        }
    }

    /// Takes the registration of a file back.
    pub(super) fn release_id(&self, state: &mut FileState) {
        if let Io::Passthrough { id, .. } = state.io {
            self.unregister(id);
        }
        state.io = Io::Idle;
    }

    /// Gives up what a state holds outside of memory, when its node is forgotten.
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

    /// Takes lookups of a node back, and gives up what the nodes that go with it hold.
    pub(super) fn forget(&self, table: &Table, id: NodeId, count: u64) {
        for body in table.forget(id, count) {
            table.with_forgotten(&body, |state| self.release_state(state));
        }
    }

    /// Notes that a registration is kept without an open handle, since the next open is likely to
    /// want it. The least recently used one of many goes.
    pub(super) fn note_id(&self, table: &Table, id: NodeId) {
        let Some(old) = evict(&self.ids, id) else { return };
        table.try_with_file(old, |held| {
            if held.state.opens == 0 {
                self.release_id(held.state);
            }
        });
        table.drop_body(old, Body::is_idle);
    }

    /// Notes that a descriptor is kept. The least recently used one of many goes.
    pub(super) fn note_file(&self, table: &Table, id: NodeId) {
        let Some(old) = evict(&self.files, id) else { return };
        table.try_with_file(old, |held| held.state.file = None);
    }

    /// Notes that a pin keeps a file that has no open handle. The oldest one of many goes.
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
