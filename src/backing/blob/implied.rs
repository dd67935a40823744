//! Implied directories have the attributes of the directories below them.
//!
//! An archive may hold `tmp/x` without `tmp/`. The layer has the directory all the same, marked as
//! implied, and shows mode, owner, times and extended attributes of the directory that the next
//! lower layer has there. The layers alone determine that directory, so it is found once, when the
//! layers are stacked. A layer without implied directories costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::index::{Index, ROOT};
use crate::format::layout::{Dirent, Inode};
use crate::store::Layer;
use crate::types::Kind;

/// The sources of the attributes of implied directories: a layer, and the directory's number there.
pub(super) type Sources = HashMap<u32, (Arc<Layer>, u32)>;

/// A layer, and the sources of the attributes of its implied directories.
#[derive(Clone)]
pub(super) struct Stacked {
    pub(super) layer: Arc<Layer>,
    pub(super) sources: Arc<Sources>,
}

impl Stacked {
    /// Returns the source of the attributes of a directory of this layer.
    fn source(&self, ino: u32) -> (Arc<Layer>, u32) {
        let own = || (Arc::clone(&self.layer), ino);
        self.sources.get(&ino).cloned().unwrap_or_else(own)
    }
}

/// The directories of an index except the root; a parent comes before its entries.
struct Dirs<'a> {
    index: &'a Index,
    found: Vec<(u32, &'a Dirent, &'a Inode)>,
}

impl<'a> Dirs<'a> {
    fn new(index: &'a Index) -> Self {
        let dirs = index.dirents().iter().filter(|entry| entry.kind == Kind::Dir as u8);
        let dirs = dirs.filter_map(|entry| {
            let ino = entry.object()?;
            Some((ino, entry, index.inode(ino)?))
        });
        let mut found: Vec<_> = dirs.collect();
        found.sort_unstable_by_key(|(ino, ..)| *ino);
        Self { index, found }
    }

    /// Looks up the directories in `open` in one lower layer. `closed` holds the directories below
    /// which the layers further down show nothing.
    fn look(
        &self,
        lower: &Stacked,
        open: &mut HashSet<u32>,
        closed: &mut HashSet<u32>,
        sources: &mut Sources,
    ) {
        let below = lower.layer.index();
        let mut places = HashMap::from([(ROOT, ROOT)]);
        let mut later = Vec::new();
        for (ino, entry, inode) in &self.found {
            let parent = inode.parent.get();
            if closed.contains(&parent) {
                closed.insert(*ino);
                open.remove(ino);
                continue;
            }
            let Some(place) = places.get(&parent) else { continue };
            let Some(there) = below.find(*place, self.index.name(entry)) else { continue };
            let object = there.object().and_then(|number| Some((number, below.inode(number)?)));
            let Some((number, found)) = object.filter(|(_, found)| found.kind() == Kind::Dir)
            else {
                open.remove(ino);
                later.push(*ino);
                continue;
            };
            places.insert(*ino, number);
            if open.remove(ino) {
                sources.insert(*ino, lower.source(number));
            }
            if found.is_opaque() {
                later.push(*ino);
            }
        }
        closed.extend(later);
    }
}

/// Finds the sources of the attributes of the implied directories of a layer. `below` holds the
/// layers under it, the lowest first.
pub(super) fn sources(layer: &Layer, below: &[Stacked]) -> Sources {
    let mut sources = Sources::new();
    let index = layer.index();
    let is_implied = |ino: u32| index.inode(ino).is_some_and(Inode::is_implied);
    if let (true, Some(next)) = (is_implied(ROOT), below.last()) {
        sources.insert(ROOT, next.source(ROOT));
    }
    if !index.has_implied() || index.inode(ROOT).is_none_or(Inode::is_opaque) {
        return sources;
    }
    let dirs = Dirs::new(index);
    let such = |is: fn(&Inode) -> bool| {
        let found = dirs.found.iter().filter(move |(.., inode)| is(inode));
        found.map(|(ino, ..)| *ino).collect::<HashSet<u32>>()
    };
    let (mut open, mut closed) = (such(Inode::is_implied), such(Inode::is_opaque));
    for lower in below.iter().rev() {
        if open.is_empty() {
            break;
        }
        dirs.look(lower, &mut open, &mut closed, &mut sources);
        if lower.layer.index().inode(ROOT).is_none_or(Inode::is_opaque) {
            break;
        }
    }
    sources
}
