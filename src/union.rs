//! The rules of the union: which object a name means, what a change does to which layer.
//!
//! Pure logic over the traits of [`layer`]: nothing here opens a file, knows a protocol or reads
//! a clock. A [`Union`] is one mount. The parts:
//!
//! - [`table`]: what the kernel knows of, by node number and by backing object;
//! - [`body`]: state of directories (the parts they are merged from) and of open files;
//! - `resolve`: the lookup rules; [`mark`]: whiteouts, opacity, redirects as layers spell them;
//! - `lock`: the locks, their order, and the functions that hand them out;
//! - `copyup`: how an object comes into the upper, whole or not at all;
//! - `namespace`, `remove`, `rename`: changes of directories; `open`, `io`, `attr`, `xattr`: of
//!   objects;
//! - `listing`: merged directories with positions that stay valid.
//!
//! Invariants: a layer below the upper is never changed; an object appears in the upper under its
//! name only when it is complete (it grows in the work directory and is renamed); a node keeps its
//! inode number for as long as the mount shows it. No lock of the whole mount is taken by a
//! request, and none across I/O but the copy-up lock of one inode.

pub mod api;
mod attr;
pub mod body;
mod claims;
pub mod config;
mod copyup;
mod empty;
mod fixed;
mod ids;
mod index;
mod io;
pub mod layer;
mod listing;
mod lock;
mod lookup;
pub mod mark;
mod namespace;
mod open;
mod parts;
mod plus;
mod proof;
mod readers;
mod redirect;
mod remove;
mod rename;
mod resolve;
mod served;
mod shadow;
mod shed;
pub mod table;
pub mod walk;
mod xattr;

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;

use crate::error::{Errno, Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Mutex, OnceLock, Ordering, RwLock};
use crate::types::{Kind, Name, NodeId, Stat, StatFs, name};

pub use api::{Caller, DirSink, Entry, Kernel, Kill, OpenFlags, OpenMode, Opened, Tell};
pub use config::{
    Config, Graft, GraftRoot, IdMap, IdRange, Lower, Marks, Options, Upper, WhiteoutForm,
};
pub use copyup::copy_data;
pub use empty::empty_dir;
pub use layer::{Dir, DirRef, File, FileRef};

use body::{Body, DirBody, FIRST_GRAFT, LayerDir, Life, Place, Stack, UPPER};
use table::{Key, Node, Table};

/// Longest path of one lookup that a redirect may name, in bytes (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Counters of a mount since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Inodes that the kernel or an open file holds at present.
    pub inodes: u64,
    /// Lookups.
    pub lookups: u64,
    /// Objects copied to the upper.
    pub copy_ups: u64,
    /// Bytes of data copied with them.
    pub copy_up_bytes: u64,
    /// Files opened.
    pub opens: u64,
    /// Of these, served by the kernel itself.
    pub passthrough_opens: u64,
    /// Merged directories of which something is kept for the next listing.
    #[serde(default)]
    pub listings: u64,
    /// Bytes of that.
    #[serde(default)]
    pub listing_bytes: u64,
}

#[derive(Default)]
struct Counters {
    lookups: AtomicU64,
    copy_ups: AtomicU64,
    copy_up_bytes: AtomicU64,
    opens: AtomicU64,
    passthrough_opens: AtomicU64,
}

/// The writable layer and what belongs to it.
struct UpperLayer {
    work: DirRef,
    own: crate::types::Owner,
    orphans: DirRef,
    index: Option<DirRef>,
    whiteout: Mutex<Option<u64>>,
    whiteout_ino: AtomicU64,
}

struct GraftState {
    parent_path: Vec<Name>,
    entry: Name,
    root: GraftRoot,
    read_only: bool,
}

/// One mount.
pub struct Union {
    options: Options,
    table: Table,
    roots: Vec<LayerDir>,
    shifted: Vec<u16>,
    proof: proof::Proof,
    fixed: fixed::Fixed,
    upper: Option<UpperLayer>,
    root: DirRef,
    grafts: Vec<GraftState>,
    served: served::Served,
    graft_places: HashMap<(NodeId, Vec<u8>), u16>,
    devices: RwLock<Vec<u64>>,
    device_bits: u32,
    sequence: AtomicU64,
    kernel: OnceLock<Arc<dyn Kernel>>,
    passthrough_off: AtomicBool,
    files: Mutex<LruCache<NodeId, ()>>,
    ids: Mutex<LruCache<NodeId, ()>>,
    pins: Mutex<LruCache<NodeId, ()>>,
    listings: Mutex<listing::Kept>,
    plus: plus::Plus,
    claims: claims::Claims,
    live_writers: AtomicU64,
    shed: shed::Shed,
    counters: Counters,
    rename: Mutex<()>,
    published: AtomicU64,
}

fn cache<V>(capacity: usize) -> Mutex<LruCache<NodeId, V>> {
    let capacity = std::num::NonZeroUsize::new(capacity).unwrap_or(std::num::NonZeroUsize::MIN);
    Mutex::new(LruCache::new(capacity))
}

impl Union {
    /// Builds a mount.
    ///
    /// # Errors
    /// `EINVAL` without any layer; what the backing answers for the roots; `ENOENT` or `ENOTDIR`
    /// where the path of a graft is missing.
    pub fn new(config: Config) -> Result<Self> {
        let marks = config.options.marks;
        let mut roots = Vec::new();
        let mut shifted = Vec::new();
        for (lower, layer) in config.lowers.iter().zip(1..FIRST_GRAFT) {
            if lower.shifted {
                shifted.push(layer);
            }
            roots.push(LayerDir::new(layer, Arc::clone(&lower.root)));
            if roots.len() < config.lowers.len() && is_opaque_root(&lower.root)? {
                break;
            }
        }
        let mut stack = Stack { lowers: roots.iter().cloned().collect(), ..Stack::default() };
        let mut upper = None;
        if let Some(layer) = &config.upper {
            if root_mark(&layer.root, &mark::Mark::Opaque.key(marks))?
                || resolve::is_aufs_whiteout(&layer.root, mark::WH_OPAQUE)?
            {
                stack.lowers.clear();
            }
            stack.upper = Some(Arc::clone(&layer.root));
            upper = Some(UpperLayer::new(layer)?);
        }
        let root = stack.top().cloned().ok_or(Errno::INVAL)?;
        let stat = root.stat(None)?;
        let layer = if upper.is_some() { UPPER } else { 1 };
        let devices = ids::devices(&config, &stat)?;
        let grafts = config.grafts.into_iter().map(GraftState::new).collect::<Result<_>>()?;
        let origin = stack.lowers.first().map_or(Ok(stat), |lower| lower.dir.stat(None))?;
        let body = Arc::new(Body::Dir(DirBody::new(stack)));
        let listing_bytes = config.options.listing_bytes;
        let mut union = Self {
            options: config.options,
            proof: match upper {
                Some(_) => proof::Proof::of(&roots)?,
                None => proof::Proof::default(),
            },
            fixed: fixed::Fixed::default(),
            table: Table::new(Key::new(layer, 0, stat.ino), origin.ino, body),
            roots,
            shifted,
            upper,
            root,
            grafts,
            served: served::Served::default(),
            graft_places: HashMap::new(),
            device_bits: ids::device_bits(devices.len()),
            devices: RwLock::new(devices),
            sequence: AtomicU64::new(1),
            kernel: OnceLock::new(),
            passthrough_off: AtomicBool::new(true),
            files: cache(256),
            ids: cache(256),
            pins: cache(open::PINS),
            listings: Mutex::new(listing::Kept::new(listing_bytes)),
            plus: plus::Plus::default(),
            claims: claims::Claims::default(),
            live_writers: AtomicU64::new(0),
            shed: shed::Shed::default(),
            counters: Counters::default(),
            rename: Mutex::new(()),
            published: AtomicU64::new(0),
        };
        union.table.set_ino(NodeId::ROOT, union.show_ino(&origin));
        union.note_fixed(NodeId::ROOT, layer, &stat);
        union.sweep_index()?;
        union.attach_grafts()?;
        Ok(union)
    }

    // The place of one may be in another one before it.
    fn attach_grafts(&mut self) -> Result<()> {
        let places: Vec<_> = self.grafts.iter().map(GraftState::place).collect();
        for ((parents, entry), number) in places.into_iter().zip(FIRST_GRAFT..) {
            let mut parent = NodeId::ROOT;
            for component in &parents {
                // The lookup is kept: a graft holds the directories above it.
                parent = self.lookup(parent, component)?.ok_or(Errno::NOENT)?.node;
            }
            let node = self.node(parent)?;
            let body = node.body.as_deref().and_then(Body::dir).ok_or(Errno::NOTDIR)?;
            body.has_grafts.store(true, Ordering::Release);
            self.graft_places.insert((parent, entry.to_vec()), number);
        }
        Ok(())
    }

    /// Uses the kernel from now on; with `passthrough` it serves files by itself.
    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>, passthrough: bool) {
        if self.kernel.set(kernel).is_err() {
            tracing::debug!("the kernel was set already");
        }
        self.passthrough_off.store(!passthrough, Ordering::Relaxed);
    }

    /// States whether nothing can be changed.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.upper.is_none()
    }

    /// States whether somebody walks through the tree who asks for attributes.
    #[must_use]
    pub fn is_walked(&self) -> bool {
        self.plus.runs()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (listings, listing_bytes) = self.listings.lock().stats();
        Stats {
            inodes: self.table.len(),
            lookups: read(&self.counters.lookups),
            copy_ups: read(&self.counters.copy_ups),
            copy_up_bytes: read(&self.counters.copy_up_bytes),
            opens: read(&self.counters.opens),
            passthrough_opens: read(&self.counters.passthrough_opens),
            listings,
            listing_bytes,
        }
    }

    /// Takes back lookups that the kernel counted.
    pub fn forget(&self, node: NodeId, count: u64) {
        for body in self.table.forget(node, count) {
            self.with_forgotten(&body, |state| self.retire(state));
        }
        self.drop_fixed(node);
    }

    /// Space of the file system that holds an object.
    ///
    /// # Errors
    /// As fstatfs(2).
    pub fn statfs(&self, node: NodeId) -> Result<StatFs> {
        let graft = self.node(node).ok().and_then(|node| self.graft(node.key.layer()));
        match graft.map(|graft| &graft.root) {
            Some(GraftRoot::Dir(dir) | GraftRoot::Entry { dir, .. }) => dir.statfs(),
            None => self.root.statfs(),
        }
    }

    /// Makes all changes durable.
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync_fs(&self) -> Result<()> {
        for graft in &self.grafts {
            match &graft.root {
                GraftRoot::Dir(dir) | GraftRoot::Entry { dir, .. } => dir.sync_fs()?,
            }
        }
        if self.upper.is_none() || self.options.volatile { Ok(()) } else { self.root.sync_fs() }
    }

    /// Ends the mount: removes what is left in the work directory.
    ///
    /// # Errors
    /// As removing entries of the work directory.
    pub fn shutdown(&self) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        empty_dir(&upper.work)
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        self.table.find(id).ok_or(Error::Rule(Errno::STALE))
    }

    fn graft(&self, layer: u16) -> Option<&GraftState> {
        self.grafts.get(usize::from(layer.checked_sub(FIRST_GRAFT)?))
    }

    fn upper(&self) -> Result<&UpperLayer> {
        self.upper.as_ref().ok_or(Error::Rule(Errno::ROFS))
    }

    fn unique_name(&self) -> Name {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        name(format!("#{number:x}").as_bytes())
    }

    /// The place of a file: parked, indexed, or below its parent by its name.
    fn place(&self, node: &Node, state: Option<&body::FileState>) -> Result<Place> {
        if state.is_some_and(|state| matches!(state.life, Life::Gone(_) | Life::Stale)) {
            return Err(Errno::STALE.into());
        }
        if let Some(place) = state.and_then(|state| state.place.as_ref()) {
            return Ok(place.clone());
        }
        let parent = self.node(node.parent)?;
        let stack = dir_of(&parent)?.stack();
        let layer = node.key.layer();
        let dir = stack.part(layer).ok_or(Errno::STALE)?;
        Ok(Place { layer, dir: Arc::clone(dir), name: node.name.clone() })
    }

    /// Attributes of a directory in its layer.
    fn stat_dir(&self, body: &DirBody) -> Result<Stat> {
        if let Some(removed) = body.removed.get() {
            return Ok(*removed);
        }
        self.step(body, || body.stack().top().ok_or(Errno::STALE)?.stat(None))
    }

    /// Attributes in its layer of what is no directory.
    fn stat_file(&self, node: &Node, state: Option<&body::FileState>) -> Result<Stat> {
        match state {
            Some(state) => self.stat_state(node, state),
            None => self.place(node, None)?.stat(),
        }
    }

    fn stat_state(&self, node: &Node, state: &body::FileState) -> Result<Stat> {
        if let Life::Gone(stat) = state.life {
            return Ok(stat);
        }
        let mut stat = self.place(node, Some(state))?.stat()?;
        if let Some(data) = &state.data {
            stat.blocks = data.stat()?.blocks;
        }
        let links = i64::from(stat.nlink) + state.nlink_diff;
        let names = if state.indexed { i64::from(stat.nlink) - 1 } else { 0 };
        stat.nlink = u32::try_from(links.max(names)).unwrap_or(u32::MAX);
        if state.life.is_nameless() {
            stat.nlink = 0;
        }
        Ok(stat)
    }
}

impl UpperLayer {
    fn new(layer: &Upper) -> Result<Self> {
        let orphans: &[u8] = b"orphans";
        let stat = layer.work.stat(None)?;
        let own = crate::types::Owner { uid: stat.uid, gid: stat.gid };
        match layer.work.mkdir(orphans, 0o700, own) {
            Ok(()) => {}
            Err(error) if error.is(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            work: Arc::clone(&layer.work),
            own,
            orphans: layer.work.dir(orphans),
            index: layer.index.clone(),
            whiteout: Mutex::new(None),
            whiteout_ino: AtomicU64::new(0),
        })
    }
}

impl GraftState {
    /// The path of the directory that it is in, and its name there.
    fn place(&self) -> (Vec<Name>, Name) {
        (self.parent_path.clone(), self.entry.clone())
    }

    fn new(graft: Graft) -> Result<Self> {
        let (entry, parents) = graft.path.split_last().ok_or(Errno::INVAL)?;
        Ok(Self {
            parent_path: parents.to_vec(),
            entry: entry.clone(),
            root: graft.root,
            read_only: graft.read_only,
        })
    }
}

/// States whether a file of a lower layer, which never changes, is read through the page cache.
const fn is_small_lower(layer: u16, stat: &Stat) -> bool {
    let lower = layer != UPPER && layer < FIRST_GRAFT;
    lower && matches!(stat.kind(), Kind::File) && stat.size < open::PASSTHROUGH_MIN
}

/// The state of a directory node.
fn dir_of(node: &Node) -> Result<&DirBody> {
    node.body.as_deref().and_then(Body::dir).ok_or(Error::Rule(Errno::NOTDIR))
}

/// Refuses what is no name of one entry.
fn check_name(entry: &[u8]) -> Result<()> {
    if entry.len() > crate::types::NAME_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    if entry.is_empty() || entry == b"." || entry == b".." || entry.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

fn root_mark(root: &DirRef, key: &[u8]) -> Result<bool> {
    Ok(root.xattr(None, key)?.as_deref() == Some(b"y"))
}

fn is_opaque_root(root: &DirRef) -> Result<bool> {
    let [trusted, user] = mark::keys(mark::Mark::Opaque);
    Ok(root_mark(root, &trusted)?
        || root_mark(root, &user)?
        || resolve::is_aufs_whiteout(root, mark::WH_OPAQUE)?)
}
