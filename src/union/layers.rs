//! The layers of a mount, their rules, and the additional state of the upper.
//!
//! Nothing here depends on nodes: the meaning of a name follows from the parts of a directory.
//!
//! - `resolve`: the meaning of a name; `found`: the result;
//! - `ids`, `devices`, `proof`: numbers and owners as the mount shows them;
//! - `index`, `flags`: state that the upper keeps of lower objects in addition to their copies;
//! - `shadow`: whiteouts; `stage`: copies while they grow;
//! - `grafts`: host trees; `group`: the group that they show.

pub(super) mod devices;
mod flags;
pub(super) mod found;
pub(super) mod freeze;
pub(super) mod grafts;
mod group;
mod ids;
mod index;
pub(super) mod proof;
mod resolve;
pub(super) mod shadow;
pub(super) mod stage;

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::types::{Name, NodeId, Owner, Stat, StatFs, name};
use crate::union::body::{FIRST_GRAFT, LayerDir, Stack, UPPER};
use crate::union::config::{Config, GraftRoot, Options, Upper};
use crate::union::empty::empty_dir;
use crate::union::layer::DirRef;
use crate::union::mark::{self, Mark};
use crate::union::probe::is_aufs_whiteout;

use devices::Devices;
use grafts::{GraftState, Grafts};
use proof::Proof;

/// The number of the topmost lower layer of a mount whose upper may become a layer: the numbers
/// below are for those.
const FIRST_OF_MANY: u16 = 0x4000;

/// The directory of files without a name, in the work directory.
pub const ORPHANS: &[u8] = b"orphans";

/// The writable layer and what belongs to it.
struct UpperLayer {
    work: DirRef,
    own: Owner,
    orphans: DirRef,
    index: Option<DirRef>,
    whiteout: Mutex<Option<u64>>,
    whiteout_ino: AtomicU64,
}

/// Counters of copies to the upper.
#[derive(Default)]
struct Copies {
    objects: AtomicU64,
    bytes: AtomicU64,
    published: AtomicU64,
}

/// The layers of a mount.
pub(super) struct Layers {
    options: Options,
    roots: Vec<LayerDir>,
    shifted: Vec<u16>,
    proof: Proof,
    /// The proofs of the layers that were uppers.
    proofs: Vec<(u16, Proof)>,
    upper: Option<UpperLayer>,
    root: DirRef,
    grafts: Grafts,
    devices: Devices,
    sequence: AtomicU64,
    copies: Copies,
}

/// The root directory of a mount.
pub(super) struct Root {
    /// The parts.
    pub(super) stack: Stack,
    /// The layer that gives its attributes.
    pub(super) layer: u16,
    /// The attributes in that layer.
    pub(super) stat: Stat,
    /// The attributes of the part whose number it shows.
    pub(super) origin: Stat,
}

impl Layers {
    /// Opens the layers of a mount.
    ///
    /// # Errors
    /// `EINVAL` without any layer; errors of the backing.
    pub(super) fn new(config: Config) -> Result<(Self, Root)> {
        let marks = config.options.marks;
        let mut roots = Vec::new();
        let mut shifted = Vec::new();
        let first = if config.options.freezes { FIRST_OF_MANY } else { 1 };
        for (lower, layer) in config.lowers.iter().zip(first..FIRST_GRAFT) {
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
            if root_mark(&layer.root, &Mark::Opaque.key(marks))?
                || is_aufs_whiteout(&layer.root, mark::WH_OPAQUE)?
            {
                stack.lowers.clear();
            }
            stack.upper = Some(Arc::clone(&layer.root));
            upper = Some(UpperLayer::new(layer)?);
        }
        let root = stack.top().cloned().ok_or(Errno::INVAL)?;
        let stat = root.stat(None)?;
        let devices = Devices::of(&config, &stat)?;
        let grafts = Grafts::new(config.grafts)?;
        // An upper, and a layer that was one, shows the number of what it covers.
        let mut parts = stack.lowers.iter().zip(&config.lowers);
        let covered = parts.find(|(_, lower)| !lower.was_upper).map(|(part, _)| part);
        let origin = covered.or(stack.lowers.last());
        let origin = origin.map_or(Ok(stat), |part| part.dir.stat(None))?;
        let proof = match upper {
            Some(_) => Proof::of(&roots)?,
            None => Proof::default(),
        };
        let mut proofs = Vec::new();
        for (number, lower) in config.lowers.iter().take(roots.len()).enumerate() {
            if let (true, Some((root, below))) =
                (lower.was_upper, roots.get(number..).and_then(<[LayerDir]>::split_first))
            {
                proofs.push((root.layer, Proof::of(below)?));
            }
        }
        let layer = if upper.is_some() { UPPER } else { first };
        let layers = Self {
            options: config.options,
            roots,
            shifted,
            proof,
            proofs,
            upper,
            root,
            grafts,
            devices,
            sequence: AtomicU64::new(1),
            copies: Copies::default(),
        };
        Ok((layers, Root { stack, layer, stat, origin }))
    }

    /// The rules of the mount.
    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Whether nothing can be changed.
    pub(super) const fn is_read_only(&self) -> bool {
        self.upper.is_none()
    }

    /// Whether there are layers below a lower layer.
    pub(super) fn has_below(&self, layer: u16) -> bool {
        self.roots.last().is_some_and(|last| last.layer > layer)
    }

    /// The host trees.
    pub(super) const fn grafts(&self) -> &Grafts {
        &self.grafts
    }

    /// The host trees, to be put in their places.
    pub(super) const fn grafts_mut(&mut self) -> &mut Grafts {
        &mut self.grafts
    }

    /// Returns the host tree that is a layer.
    pub(super) fn graft(&self, layer: u16) -> Option<&GraftState> {
        self.grafts.of_layer(layer)
    }

    /// Whether there is a graft at a name.
    pub(super) fn is_graft_place(&self, parent: NodeId, entry: &[u8]) -> bool {
        self.grafts.at(parent, entry).is_some()
    }

    /// Refuses to change a host tree that is read-only. `EROFS`.
    pub(super) fn check_writable(&self, layer: u16) -> Result<()> {
        match self.graft(layer) {
            Some(graft) if graft.is_read_only() => Err(Errno::ROFS.into()),
            _ => Ok(()),
        }
    }

    /// Refuses a change if there is no upper. `EROFS`.
    pub(super) fn check_upper(&self) -> Result<()> {
        self.upper().map(|_| ())
    }

    /// The work directory.
    ///
    /// # Errors
    /// `EROFS`.
    pub(super) fn work(&self) -> Result<&DirRef> {
        Ok(&self.upper()?.work)
    }

    /// The directory of files that have no name in the mount.
    ///
    /// # Errors
    /// `EROFS`.
    pub(super) fn orphans(&self) -> Result<&DirRef> {
        Ok(&self.upper()?.orphans)
    }

    /// The owner of objects that the mount makes for itself.
    ///
    /// # Errors
    /// `EROFS`.
    pub(super) fn own(&self) -> Result<Owner> {
        Ok(self.upper()?.own)
    }

    fn upper(&self) -> Result<&UpperLayer> {
        self.upper.as_ref().ok_or(Error::Rule(Errno::ROFS))
    }

    pub(super) fn index(&self) -> Option<&DirRef> {
        self.upper.as_ref().and_then(|upper| upper.index.as_ref())
    }

    /// Returns a name that no entry of the work directory has.
    pub(super) fn unique_name(&self) -> Name {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        name(format!("#{number:x}").as_bytes())
    }

    /// Counts an object that was copied up.
    pub(super) fn count_copy(&self) {
        self.copies.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of objects that were copied up, and of bytes of data copied with them.
    pub(super) fn copied(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.copies.objects), read(&self.copies.bytes))
    }

    /// The number of objects that came into the upper so far. If it grew since a lower object was
    /// found, the object may be in the upper by now, and its key may lead to nothing.
    pub(super) fn published(&self) -> u64 {
        self.copies.published.load(Ordering::Acquire)
    }

    /// Returns the space of the file system that holds the objects of a layer.
    ///
    /// # Errors
    /// As fstatfs(2).
    pub(super) fn statfs(&self, layer: Option<u16>) -> Result<StatFs> {
        match layer.and_then(|layer| self.graft(layer)).map(GraftState::root) {
            Some(GraftRoot::Dir(dir) | GraftRoot::Entry { dir, .. }) => dir.statfs(),
            None => self.root.statfs(),
        }
    }

    /// Makes all changes durable.
    ///
    /// # Errors
    /// As syncfs(2).
    pub(super) fn sync_fs(&self) -> Result<()> {
        for graft in self.grafts.all() {
            match graft.root() {
                GraftRoot::Dir(dir) | GraftRoot::Entry { dir, .. } => dir.sync_fs()?,
            }
        }
        if self.upper.is_none() || self.options.volatile { Ok(()) } else { self.root.sync_fs() }
    }

    /// Removes what is left in the work directory.
    ///
    /// # Errors
    /// As removing its entries.
    pub(super) fn clear_work(&self) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        empty_dir(&upper.work)
    }
}

impl UpperLayer {
    fn new(layer: &Upper) -> Result<Self> {
        let stat = layer.work.stat(None)?;
        let own = Owner { uid: stat.uid, gid: stat.gid };
        match layer.work.mkdir(ORPHANS, 0o700, own) {
            Ok(()) => {}
            Err(error) if error.is(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            work: Arc::clone(&layer.work),
            own,
            orphans: layer.work.dir(ORPHANS),
            index: layer.index.clone(),
            whiteout: Mutex::new(None),
            whiteout_ino: AtomicU64::new(0),
        })
    }
}

fn root_mark(root: &DirRef, key: &[u8]) -> Result<bool> {
    Ok(root.xattr(None, key)?.as_deref() == Some(b"y"))
}

fn is_opaque_root(root: &DirRef) -> Result<bool> {
    let [trusted, user] = mark::keys(Mark::Opaque);
    Ok(root_mark(root, &trusted)?
        || root_mark(root, &user)?
        || is_aufs_whiteout(root, mark::WH_OPAQUE)?)
}
