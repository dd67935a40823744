//! The changes in an upper: its own entries are walked, and the objects are seen through the union.
//!
//! An upper alone is not complete: data and names may be in layers below it. Layers that were
//! uppers before it (snapshots) count as a part of it. So each of its entries
//! is looked up in a union of all layers and compared with a union of the layers below. Only
//! directories that exist in the upper are entered, so the work is proportional to the changes.

use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::Failure;
use super::failure::ServiceResult;
use super::mount::View;
use super::prefill::names;
use super::spec::{MountSpec, UpperDirs};
use crate::error::{Errno, Error, Result};
use crate::store::error::StoreError;
use crate::types::{Kind, Name, NodeId};
use crate::union::mark::{Marked, WH_OPAQUE, WH_PREFIX};
use crate::union::{DirRef, Entry, Union};

/// An upper, seen over the layers below it.
pub(super) struct Changed {
    pub(super) over: View,
    pub(super) below: Option<View>,
    /// The upper, and the layers that were uppers.
    own: RangeInclusive<u16>,
    is_frozen: bool,
    label: PathBuf,
    /// Keeps mounts from using an upper without a work directory.
    _lock: Option<OwnedFd>,
}

/// The deepest directory that is entered, as in an import.
const DEPTH_MAX: usize = 1024;

/// Receives changes, a directory before its content.
pub(super) trait Changes {
    /// An object is new or changed; `before` is the old one.
    fn put(&mut self, path: &[Name], now: &Entry, before: Option<&Entry>) -> Done;
    /// An object of the layers below was removed.
    fn removed(&mut self, path: &[Name]) -> Done;
    /// A new directory hides all of the directory `before`.
    fn replaced(&mut self, path: &[Name], now: NodeId, before: NodeId) -> Done;
}

pub(super) type Done = std::result::Result<(), StoreError>;

/// The location of an upper and of the layers below it.
#[derive(Debug, Clone, Default)]
pub struct UpperSpec {
    /// The upper directory.
    pub upper: PathBuf,
    /// The work directory, which has the other names of copied-up hard links.
    pub work: Option<PathBuf>,
    /// Layers below it that were uppers, the topmost first.
    pub former: Vec<PathBuf>,
    /// Whether the upper is a layer too, so that nothing changes it.
    pub is_frozen: bool,
    /// The layers of the image below it, by their ids, where no image is named.
    pub layers: Vec<String>,
    /// The image below it.
    pub image: Option<String>,
    /// The container of the upper, whose image is below it.
    pub container: Option<String>,
    /// The data root.
    pub root: PathBuf,
    /// The directory of the status sockets of mounts.
    pub runtime: Option<PathBuf>,
}

pub(super) fn shown(path: &[Name]) -> String {
    path.iter().fold(String::new(), |text, part| text + "/" + &String::from_utf8_lossy(part))
}

/// Adds the path of the object to an error.
pub(super) fn at(path: &[Name]) -> impl Fn(Error) -> StoreError + use<> {
    let name = shown(path);
    move |error| StoreError::Entry { name: name.clone(), what: error.to_string() }
}

fn marks(dir: &DirRef, name: &[u8]) -> Result<Marked> {
    Ok(Marked::from_names(&dir.xattr_names(Some(name))?))
}

impl Changed {
    /// Opens an upper and locks it, so that nothing changes it in the meantime.
    ///
    /// # Errors
    /// [`Failure`], also if a mount uses the upper.
    pub(super) fn open(of: &UpperSpec) -> ServiceResult<Self> {
        let images: Vec<String> = of.image.iter().cloned().collect();
        let mut spec = MountSpec {
            root: of.root.clone(),
            runtime: of.runtime.clone(),
            images: images.clone(),
            container: of.container.clone(),
            layers: of.layers.clone(),
            ..MountSpec::default()
        };
        let is_alone = images.is_empty() && of.container.is_none() && of.layers.is_empty();
        let below = if is_alone { None } else { Some(View::open(&spec)?) };
        (spec.lowers, spec.former) = (of.former.clone(), of.former.len());
        spec.upper = Some(UpperDirs { upper: of.upper.clone(), work: of.work.clone() });
        spec.flags.read_only = of.work.is_none();
        let lock = match of.work {
            None if !of.is_frozen => Some(super::layers::lock_unmounted(&spec, &of.upper)?),
            _ => None,
        };
        let over = View::open(&spec)?;
        let top: u16 = if of.work.is_some() { 0 } else { 1 };
        let own = top..=top.saturating_add(u16::try_from(of.former.len()).unwrap_or(u16::MAX));
        let is_frozen = of.is_frozen;
        Ok(Self { over, below, own, is_frozen, label: of.upper.clone(), _lock: lock })
    }

    /// Closes the upper.
    pub(super) fn end(self) -> ServiceResult<()> {
        self.over.end()
    }

    /// Reports all changes.
    pub(super) fn walk(&self, to: &mut dyn Changes) -> ServiceResult<()> {
        let below = self.below.as_ref().map(|_| NodeId::ROOT);
        let mut telling = Telling { to, told: HashSet::new() };
        let told = self
            .directory(NodeId::ROOT, below, &mut Vec::new(), &mut telling)
            .and_then(|()| self.indexed(&mut telling));
        told.map_err(|error| Failure::Layer {
            path: self.label.clone(),
            error: Box::new(error.into()),
        })
    }

    fn directory(
        &self,
        over: NodeId,
        below: Option<NodeId>,
        path: &mut Vec<Name>,
        to: &mut dyn Changes,
    ) -> Done {
        check_depth(path)?;
        let parts = self.parts(over).map_err(at(path))?;
        let mut all = BTreeSet::new();
        for part in &parts {
            add_names(part, &mut all).map_err(at(path))?;
        }
        for name in all {
            path.push(name);
            self.entry(&parts, (over, below), path, to)?;
            path.pop();
        }
        Ok(())
    }

    /// The parts of a directory in its own layers, the topmost first.
    fn parts(&self, dir: NodeId) -> Result<Vec<DirRef>> {
        let mut found = Vec::new();
        for layer in self.own.clone() {
            found.extend(self.over.union.part(dir, layer)?);
        }
        Ok(found)
    }

    // If a file with hard links was copied up under one name, its other names are only in the
    // index: they are found by a walk through the whole union, if there is an index.
    fn indexed(&self, telling: &mut Telling<'_>) -> Done {
        let is_empty = self.over.has_empty_index().map_err(at(&[]))?;
        if *self.own.start() != 0 || is_empty {
            return Ok(());
        }
        let below = self.below.as_ref().map(|_| NodeId::ROOT);
        self.look(NodeId::ROOT, below, &mut Vec::new(), telling)
    }

    fn look(
        &self,
        over: NodeId,
        below: Option<NodeId>,
        path: &mut Vec<Name>,
        telling: &mut Telling<'_>,
    ) -> Done {
        check_depth(path)?;
        let union = &self.over.union;
        let mut all = names(union, over).map_err(at(path))?;
        all.sort();
        for name in all {
            let Some(now) = union.lookup(over, &name).map_err(at(path))? else { continue };
            let before = self.before(below, &name).map_err(at(path))?;
            path.push(name);
            if now.stat.kind() == Kind::Dir {
                let before = before.filter(|before| before.stat.kind() == Kind::Dir);
                self.look(now.node, before.map(|before| before.node), path, telling)?;
            } else if union.is_in(now.node, *self.own.start()).map_err(at(path))?
                && !telling.told.contains(&path[..])
            {
                self.tell_parents(path, telling)?;
                telling.put(path, &now, before.as_ref())?;
            }
            path.pop();
        }
        Ok(())
    }

    // Reports the directories of lower layers on the way to a name, as they are.
    fn tell_parents(&self, path: &[Name], telling: &mut Telling<'_>) -> Done {
        let union = &self.over.union;
        let mut dir = NodeId::ROOT;
        for len in 1..path.len() {
            let here = path.get(..len).unwrap_or(path);
            let name = here.last().map_or(&[][..], |name| &name[..]);
            let Some(entry) = union.lookup(dir, name).map_err(at(here))? else { return Ok(()) };
            if !telling.told.contains(here) {
                telling.put(here, &entry, Some(&entry))?;
            }
            dir = entry.node;
        }
        Ok(())
    }

    fn before(&self, below: Option<NodeId>, name: &[u8]) -> Result<Option<Entry>> {
        match (&self.below, below) {
            (Some(view), Some(dir)) => view.union.lookup(dir, name),
            _ => Ok(None),
        }
    }

    fn entry(
        &self,
        parts: &[DirRef],
        (over, below): (NodeId, Option<NodeId>),
        path: &mut Vec<Name>,
        to: &mut dyn Changes,
    ) -> Done {
        let at = at(path);
        let Some(name) = path.last().cloned() else { return Ok(()) };
        let (mut topmost, mut redirect) = (None, false);
        for part in parts {
            match marks(part, &name) {
                Err(error) if error.is(Errno::NOENT) => continue,
                marked => {
                    let marked = marked.map_err(&at)?;
                    self.refuse_dependent(path, marked)?;
                    redirect |= marked.redirect;
                    topmost.get_or_insert(part);
                }
            }
        }
        let Some(part) = topmost else { return Ok(()) };
        let Some(now) = self.over.union.lookup(over, &name).map_err(&at)? else {
            return self.hidden(part, below, path, to);
        };
        let before = self.before(below, &name).map_err(&at)?;
        to.put(path, &now, before.as_ref())?;
        if now.stat.kind() != Kind::Dir {
            return Ok(());
        }
        let before = before.filter(|before| before.stat.kind() == Kind::Dir);
        let others = self.over.union.has_parts_below(now.node, *self.own.end()).map_err(&at)?;
        if let Some(before) = before.filter(|_| redirect || !others) {
            to.replaced(path, now.node, before.node)?;
        }
        if redirect {
            return full(&self.over.union, now.node, path, to);
        }
        self.directory(now.node, before.map(|before| before.node), path, to)
    }

    // An entry that the union does not show is a whiteout, or a mark of the format.
    fn hidden(
        &self,
        part: &DirRef,
        below: Option<NodeId>,
        path: &[Name],
        to: &mut dyn Changes,
    ) -> Done {
        let at = at(path);
        let Some((name, dir)) = path.split_last() else { return Ok(()) };
        let is_file = part.stat(Some(name)).map_err(&at)?.kind() == Kind::File;
        let hides = match name.strip_prefix(WH_PREFIX) {
            _ if name[..] == *WH_OPAQUE => return Ok(()),
            Some(rest) if is_file => Name::from_slice(rest),
            _ => name.clone(),
        };
        if self.before(below, &hides).map_err(&at)?.is_none() {
            return Ok(());
        }
        to.removed(&[dir, &[hides]].concat())
    }

    fn refuse_dependent(&self, path: &[Name], marked: Marked) -> Done {
        let what = match () {
            () if self.below.is_none()
                && self.own.start() == self.own.end()
                && (marked.redirect || marked.metacopy) =>
            {
                "a part of it is in a lower layer: give the image below (--image)"
            }
            () if *self.own.start() != 0 && !self.is_frozen && marked.nlink => {
                "further names of it are in the work directory: give that too (--work)"
            }
            () => return Ok(()),
        };
        Err(StoreError::Entry { name: shown(path), what: what.to_owned() })
    }
}

pub(super) fn check_depth(path: &[Name]) -> Done {
    if path.len() <= DEPTH_MAX {
        return Ok(());
    }
    let what = format!("more than {DEPTH_MAX} directories in each other");
    Err(StoreError::Entry { name: shown(path), what })
}

/// Passes changes on and remembers their paths.
struct Telling<'a> {
    to: &'a mut dyn Changes,
    told: HashSet<Vec<Name>>,
}

impl Changes for Telling<'_> {
    fn put(&mut self, path: &[Name], now: &Entry, before: Option<&Entry>) -> Done {
        self.told.insert(path.to_vec());
        self.to.put(path, now, before)
    }

    fn removed(&mut self, path: &[Name]) -> Done {
        self.to.removed(path)
    }

    fn replaced(&mut self, path: &[Name], now: NodeId, before: NodeId) -> Done {
        self.to.replaced(path, now, before)
    }
}

/// Reports everything in a directory of the mount, from all layers.
pub(super) fn full(union: &Union, dir: NodeId, path: &mut Vec<Name>, to: &mut dyn Changes) -> Done {
    check_depth(path)?;
    let mut all = names(union, dir).map_err(at(path))?;
    all.sort();
    for name in all {
        path.push(name.clone());
        if let Some(now) = union.lookup(dir, &name).map_err(at(path))? {
            to.put(path, &now, None)?;
            if now.stat.kind() == Kind::Dir {
                full(union, now.node, path, to)?;
            }
        }
        path.pop();
    }
    Ok(())
}

/// Adds the names in the part of a directory in one layer.
fn add_names(part: &DirRef, all: &mut BTreeSet<Name>) -> Result<()> {
    part.list(0, &mut |entry| {
        all.insert(Name::from_slice(entry.name));
        true
    })
}
