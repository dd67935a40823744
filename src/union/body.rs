//! State of a node beyond its slot: the parts of a merged directory, and the state of a file in
//! use.

use std::collections::HashSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Errno, Result};
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, RwLock};
use crate::types::{Kind, Name, NodeId, Stat, name};
use crate::union::layer::{DirRef, FileRef};
use crate::union::mark;
use crate::union::probe::is_plain;
use crate::union::readers::Readers;

/// The upper layer.
pub const UPPER: u16 = 0;
/// The first number of a graft; grafts are layers of their own.
pub const FIRST_GRAFT: u16 = 0x8000;

/// State of a node.
pub enum Body {
    /// State of a directory.
    Dir(DirBody),
    /// State of any other object.
    File(FileBody),
}

/// A place in a layer: a name in a directory.
#[derive(Clone)]
pub struct Place {
    /// The layer.
    pub layer: u16,
    /// The directory.
    pub dir: DirRef,
    /// The name in it.
    pub name: Name,
}

/// A directory of a lower layer that takes part in a merged directory.
#[derive(Clone)]
pub struct LayerDir {
    /// The layer.
    pub layer: u16,
    /// The directory.
    pub dir: DirRef,
    hidden: Hidden,
}

/// The names hidden by AUFS whiteouts that were in a directory when the mount began. They are read
/// once, since a probe for each missing name costs more.
#[derive(Clone, Default)]
pub struct Hidden(Arc<OnceLock<HashSet<Name>>>);

impl LayerDir {
    /// A directory of a layer.
    #[must_use]
    pub fn new(layer: u16, dir: DirRef) -> Self {
        Self { layer, dir, hidden: Hidden::default() }
    }

    /// Another directory of the same layer.
    #[must_use]
    pub fn within(&self, dir: DirRef) -> Self {
        Self::new(self.layer, dir)
    }

    /// Whether this directory holds the AUFS whiteout of `name`.
    ///
    /// # Errors
    /// As listing the directory.
    pub fn hides(&self, name: &[u8]) -> Result<bool> {
        self.hidden.hides(&self.dir, name)
    }
}

impl Hidden {
    fn hides(&self, dir: &DirRef, name: &[u8]) -> Result<bool> {
        if let Some(names) = self.0.get() {
            return Ok(names.contains(name));
        }
        let mut found: Vec<Name> = Vec::new();
        dir.list(0, &mut |entry| {
            let regular = matches!(entry.kind, Kind::File | Kind::Unknown);
            if regular && mark::is_aufs_name(entry.name) {
                found.push(Name::from_slice(entry.name));
            }
            true
        })?;
        let mut names = HashSet::new();
        for whiteout in found {
            if let Some(hidden) = whiteout.strip_prefix(mark::WH_PREFIX)
                && !is_plain(dir, &whiteout)?
            {
                names.insert(Name::from_slice(hidden));
            }
        }
        Ok(self.0.get_or_init(|| names).contains(name))
    }
}

/// The parts of a directory of the mount.
#[derive(Clone, Default)]
pub struct Stack {
    /// The writable part.
    pub upper: Option<DirRef>,
    /// The parts in lower layers, topmost first.
    pub lowers: SmallVec<[LayerDir; 1]>,
    /// The graft of this directory; its part is `upper`.
    pub graft: Option<u16>,
    /// The names hidden by AUFS whiteouts in the writable part that this mount did not make.
    pub hidden: Hidden,
}

impl Stack {
    /// Whether the writable part holds the AUFS whiteout of `name` and parts below may show it.
    ///
    /// # Errors
    /// As listing the directory.
    pub fn upper_hides(&self, name: &[u8]) -> Result<bool> {
        match &self.upper {
            Some(dir) if self.has_lower() => self.hidden.hides(dir, name),
            _ => Ok(false),
        }
    }

    /// Returns the attributes of a name in the writable part; `None` if there is no such entry.
    ///
    /// # Errors
    /// As statx(2), but for `ENOENT`.
    pub fn stat_upper(&self, name: &[u8]) -> Result<Option<Stat>> {
        let Some(dir) = &self.upper else { return Ok(None) };
        match dir.stat(Some(name)) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the part that gives the attributes.
    #[must_use]
    pub fn top(&self) -> Option<&DirRef> {
        self.upper.as_ref().or_else(|| self.lowers.first().map(|lower| &lower.dir))
    }

    /// Returns the part in a layer.
    #[must_use]
    pub fn part(&self, layer: u16) -> Option<&DirRef> {
        if layer == UPPER || layer >= FIRST_GRAFT {
            return self.upper.as_ref();
        }
        self.lowers.iter().find(|lower| lower.layer == layer).map(|lower| &lower.dir)
    }

    /// Whether entries of several layers are shown together, now or after a copy-up.
    #[must_use]
    pub fn has_lower(&self) -> bool {
        !self.lowers.is_empty()
    }
}

/// State of a directory.
pub struct DirBody {
    stack: RwLock<Arc<Stack>>,
    /// Locked for changes of the entries, and shared for lookups: see `lock.rs`.
    pub entries: RwLock<()>,
    /// Held while the directory is copied up, moved or removed: see `lock.rs`.
    pub change: Mutex<()>,
    /// Held while the upper part and its times change together: see `lock.rs`.
    pub times: Mutex<()>,
    /// Readers of the entries.
    pub readers: Readers,
    /// The number of changes of the entries.
    pub version: AtomicU64,
    /// 0 unknown, 1 no default ACL, 2 has one.
    pub default_acl: AtomicU8,
    /// Lookups of entries since the last listing by names only.
    pub looked_up: AtomicU32,
    /// Whether the upper part is marked as holding copied-up entries. Locked while the mark
    /// changes.
    pub impure: Mutex<bool>,
    /// Whether grafts are in this directory.
    pub has_grafts: AtomicBool,
    /// The attributes at the removal.
    pub removed: OnceLock<Stat>,
}

impl DirBody {
    /// Makes the state of a directory with these parts.
    #[must_use]
    pub fn new(stack: Stack) -> Self {
        Self {
            stack: RwLock::new(Arc::new(stack)),
            entries: RwLock::new(()),
            change: Mutex::new(()),
            times: Mutex::new(()),
            readers: Readers::default(),
            version: AtomicU64::new(1),
            default_acl: AtomicU8::new(0),
            looked_up: AtomicU32::new(u32::MAX),
            impure: Mutex::new(false),
            has_grafts: AtomicBool::new(false),
            removed: OnceLock::new(),
        }
    }

    /// The parts of the directory.
    #[must_use]
    pub fn stack(&self) -> Arc<Stack> {
        Arc::clone(&self.stack.read())
    }

    /// Replaces the parts.
    pub fn set_stack(&self, stack: Stack) {
        *self.stack.write() = Arc::new(stack);
        self.changed();
    }

    /// Replaces the parts by others that show the same.
    pub fn restack(&self, stack: Stack) {
        *self.stack.write() = Arc::new(stack);
        *self.impure.lock() = false;
    }

    /// Counts a change of the entries.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// How the kernel reads and writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Io {
    /// Undecided: no open handle, no registration.
    #[default]
    Idle,
    /// Through READ and WRITE.
    Cached,
    /// By the kernel itself; `layer` holds the registered file.
    Passthrough {
        /// The backing id.
        id: u32,
        /// The layer of the registered file.
        layer: u16,
    },
}

/// Whether a file still has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    /// It has a name.
    #[default]
    Linked,
    /// It was made without a name (`O_TMPFILE`): it is in the work directory and may get a name.
    Unnamed,
    /// Its last name was removed while it was open: it is in the work directory.
    Parked,
    /// Its last name was removed: a pin, or a lower layer in which it is hidden, leads to it.
    Kept,
    /// Its names lead to another node: a pin leads to the object that both share.
    Detached,
    /// It is gone; these were its last attributes.
    Gone(Stat),
    /// Its names lead to another node, and the object is no longer reachable from this one.
    Stale,
}

impl Life {
    /// Whether the file is in the work directory under a name of ours.
    #[must_use]
    pub const fn is_parked(self) -> bool {
        matches!(self, Self::Unnamed | Self::Parked)
    }

    /// Whether no name of the mount leads to the object.
    #[must_use]
    pub const fn is_nameless(self) -> bool {
        !matches!(self, Self::Linked | Self::Detached | Self::Stale)
    }
}

/// State of a file in use. The lock around it is the copy-up lock of the inode.
#[derive(Default)]
pub struct FileState {
    /// Open handles.
    pub opens: u32,
    /// Handles among them through which the kernel writes by itself.
    pub writers: u32,
    /// Handles of programs that run from the file.
    pub runs: u32,
    /// How the file is served.
    pub io: Io,
    /// The place of the data, if it is not that of the attributes (`metacopy`).
    pub data: Option<Place>,
    /// The place of the object, if not its name below its parent: parked, pinned or indexed.
    pub place: Option<Place>,
    /// Other known names of the object.
    pub aliases: SmallVec<[(NodeId, Name); 1]>,
    /// Whether the file has a name.
    pub life: Life,
    /// Link count relative to that of the backing object.
    pub nlink_diff: i64,
    /// Whether the object is in the index directory.
    pub indexed: bool,
    /// Descriptor for reading, and whether it can write.
    pub file: Option<(FileRef, bool)>,
    /// Whether `place` is a pin, which keeps the object by itself.
    pub pinned: bool,
    /// Whether the name of the node was removed while `place` led to the object.
    pub misnamed: bool,
}

impl FileState {
    /// Whether a name of the object exists but is not known: a pin leads to it until then.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.life == Life::Linked && !self.indexed && self.pinned
    }

    /// Whether the name of the node is none of the object.
    #[must_use]
    pub fn has_stale_name(&self) -> bool {
        self.misnamed || self.is_lost()
    }
}

/// State of a file.
#[derive(Default)]
pub struct FileBody {
    /// The state.
    pub state: Mutex<FileState>,
}

impl Body {
    /// The state of a directory.
    #[must_use]
    pub const fn dir(&self) -> Option<&DirBody> {
        match self {
            Self::Dir(dir) => Some(dir),
            Self::File(_) => None,
        }
    }

    /// The state of a file.
    #[must_use]
    pub const fn file(&self) -> Option<&FileBody> {
        match self {
            Self::File(file) => Some(file),
            Self::Dir(_) => None,
        }
    }
}

impl Place {
    /// Makes a place.
    #[must_use]
    pub fn new(layer: u16, dir: &DirRef, entry: &[u8]) -> Self {
        Self { layer, dir: Arc::clone(dir), name: name(entry) }
    }

    /// Whether this place is an entry of a directory.
    #[must_use]
    pub fn is_at(&self, dir: &DirRef, entry: &[u8]) -> bool {
        Arc::ptr_eq(&self.dir, dir) && self.name[..] == *entry
    }

    /// Returns the attributes of the object at the place.
    ///
    /// # Errors
    /// As statx(2).
    pub fn stat(&self) -> Result<Stat> {
        self.dir.stat(Some(&self.name))
    }
}
