//! The rules of the union: which object a name means, and which layer a change goes to.
//!
//! Pure logic over the traits of [`layer`]: nothing here opens a file, depends on a protocol or
//! reads a clock. A [`Union`] is one mount. Its parts do not depend on each other:
//!
//! - [`table`]: nodes that the kernel holds, by number and by backing object; `lock`: the locks of
//!   nodes, their order, and the functions that hand them out; `place`: where the object of a node
//!   is;
//! - `layers`: the layers and their rules: the meaning of names, numbers, marks, whiteouts, copies;
//! - `handles`: open files and the kernel; `served`: open files of grafts;
//! - `listings`, `listing`: merged directories with positions that stay valid.
//!
//! The operations are built on them: `lookup`; `copyup`; `namespace`, `remove`, `rename` change
//! directories; `open`, `io`, `attr`, `xattr` serve single objects; `freeze` makes the upper a
//! layer.
//!
//! Invariants: a layer below the upper is never changed; an object appears in the upper under its
//! name only when it is complete (it grows in the work directory and is renamed); a node keeps its
//! inode number for as long as the mount shows it. A request takes no lock of the whole mount, and
//! holds no lock across I/O but the copy-up lock of one inode.

pub mod api;
mod attr;
pub mod body;
mod claims;
pub mod config;
mod copyup;
mod data;
mod empty;
mod fixed;
mod freeze;
mod handles;
mod io;
pub mod layer;
mod layers;
mod listing;
mod listings;
mod lock;
mod lookup;
pub mod mark;
mod namespace;
mod open;
mod parent;
mod parts;
mod place;
mod plus;
mod probe;
mod readers;
mod redirect;
mod remove;
mod rename;
mod served;
pub mod table;
mod unlinked;
pub mod walk;
mod xattr;

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::types::{NodeId, StatFs};

pub use api::{Caller, Detail, DirSink, Entry, Kernel, Kill, OpenFlags, OpenMode, Opened};
pub use config::{
    Config, GraftRoot, GraftTree, IdMap, IdRange, Lower, Marks, Options, Upper, WhiteoutForm,
};
pub use data::copy_data;
pub use empty::empty_dir;
pub use layer::{Dir, DirRef, File, FileRef};
pub use layers::ORPHANS;

use body::{Body, DirBody, FIRST_GRAFT};
use claims::Claims;
use fixed::Fixed;
use handles::Handles;
use layers::Layers;
use layers::grafts::GraftState;
use listings::Listings;
use served::open_files::Served;
use table::{Key, Table};

/// Longest path, in bytes, that a lookup follows to a redirect (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Counters of a mount since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Inodes that the kernel or an open file holds.
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
    /// Merged directories whose listings are kept.
    #[serde(default)]
    pub listings: u64,
    /// Bytes of those listings.
    #[serde(default)]
    pub listing_bytes: u64,
}

/// One mount.
pub struct Union {
    layers: Layers,
    table: Table,
    handles: Handles,
    served: Served,
    listings: Listings,
    fixed: Fixed,
    claims: Claims,
    lookups: AtomicU64,
    rename: Mutex<()>,
}

impl Union {
    /// Builds a mount.
    ///
    /// # Errors
    /// `EINVAL` without any layer; errors of the backing for the roots; `ENOENT` or `ENOTDIR` if
    /// the path of a graft is missing.
    pub fn new(config: Config) -> Result<Self> {
        let listings = Listings::new(config.options.listing_bytes);
        let (layers, root) = Layers::new(config)?;
        let body = Arc::new(Body::Dir(DirBody::new(root.stack)));
        let ino = layers.show_ino(&root.origin);
        let mut union = Self {
            table: Table::new(Key::new(root.layer, 0, root.stat.ino), ino, body),
            layers,
            handles: Handles::new(),
            served: Served::default(),
            listings,
            fixed: Fixed::default(),
            claims: Claims::default(),
            lookups: AtomicU64::new(0),
            rename: Mutex::new(()),
        };
        union.fixed.note(NodeId::ROOT, root.layer, &root.stat);
        union.layers.sweep_index()?;
        union.attach_grafts()?;
        Ok(union)
    }

    // The place of a graft may be in an earlier one.
    fn attach_grafts(&mut self) -> Result<()> {
        let places: Vec<_> = self.layers.grafts().all().iter().map(GraftState::place).collect();
        for ((parents, entry), number) in places.into_iter().zip(FIRST_GRAFT..) {
            let mut parent = NodeId::ROOT;
            for component in &parents {
                // The lookup is kept: a graft holds the directories above it.
                parent = self.lookup(parent, component)?.ok_or(Errno::NOENT)?.node;
            }
            let node = self.table.node(parent)?;
            node.dir()?.has_grafts.store(true, Ordering::Release);
            self.layers.grafts_mut().set_place(parent, &entry, number);
        }
        Ok(())
    }

    /// Sets the kernel; with `passthrough` it serves files by itself.
    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>, passthrough: bool) {
        self.handles.set_kernel(kernel, passthrough);
    }

    /// Whether nothing can be changed.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.layers.is_read_only()
    }

    /// Whether a walk through the tree reads attributes now.
    #[must_use]
    pub fn is_walked(&self) -> bool {
        self.listings.is_walked()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (copy_ups, copy_up_bytes) = self.layers.copied();
        let (opens, passthrough_opens) = self.handles.opened();
        let (listings, listing_bytes) = self.listings.stats();
        Stats {
            inodes: self.table.len(),
            lookups: self.lookups.load(Ordering::Relaxed),
            copy_ups,
            copy_up_bytes,
            opens,
            passthrough_opens,
            listings,
            listing_bytes,
        }
    }

    /// Takes back lookups that the kernel counted.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.handles.forget(&self.table, node, count);
        self.fixed.drop_unless(node, || self.table.find(node).is_some());
    }

    /// Returns the space of the file system that holds an object.
    ///
    /// # Errors
    /// As fstatfs(2).
    pub fn statfs(&self, node: NodeId) -> Result<StatFs> {
        self.layers.statfs(self.table.find(node).map(|node| node.key.layer()))
    }

    /// Makes all changes durable.
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync_fs(&self) -> Result<()> {
        self.layers.sync_fs()
    }

    /// Ends the mount: removes what is left in the work directory.
    ///
    /// # Errors
    /// As removing entries of the work directory.
    pub fn shutdown(&self) -> Result<()> {
        self.layers.clear_work()
    }
}

/// Refuses bytes that are not a name of one entry.
fn check_name(entry: &[u8]) -> Result<()> {
    if entry.len() > crate::types::NAME_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    if entry.is_empty() || entry == b"." || entry == b".." || entry.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}
