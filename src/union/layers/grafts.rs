//! Host trees at places of the mount.

use std::collections::HashMap;

use crate::error::{Errno, Result};
use crate::types::{Name, NodeId};
use crate::union::body::FIRST_GRAFT;
use crate::union::config::{GraftRoot, GraftTree};

/// A host tree in a mount.
pub(in crate::union) struct GraftState {
    parents: Vec<Name>,
    entry: Name,
    root: GraftRoot,
    read_only: bool,
}

impl GraftState {
    /// The path of its directory, and its name there.
    pub(in crate::union) fn place(&self) -> (Vec<Name>, Name) {
        (self.parents.clone(), self.entry.clone())
    }

    /// The object that is shown.
    pub(in crate::union) const fn root(&self) -> &GraftRoot {
        &self.root
    }

    /// Whether changes are refused.
    pub(in crate::union) const fn is_read_only(&self) -> bool {
        self.read_only
    }
}

/// The host trees of a mount, and the nodes at whose names they are.
pub(in crate::union) struct Grafts {
    all: Vec<GraftState>,
    places: HashMap<(NodeId, Vec<u8>), u16>,
}

impl Grafts {
    /// Makes host trees whose places are not set yet.
    ///
    /// # Errors
    /// `EINVAL` for a graft at the root.
    pub(super) fn new(grafts: Vec<GraftTree>) -> Result<Self> {
        let state = |graft: GraftTree| {
            let (entry, parents) = graft.path.split_last().ok_or(Errno::INVAL)?;
            Ok(GraftState {
                parents: parents.to_vec(),
                entry: entry.clone(),
                root: graft.root,
                read_only: graft.read_only,
            })
        };
        let all = grafts.into_iter().map(state).collect::<Result<_>>()?;
        Ok(Self { all, places: HashMap::new() })
    }

    /// Whether there are no grafts.
    pub(in crate::union) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All grafts, in the order of their layers.
    pub(in crate::union) fn all(&self) -> &[GraftState] {
        &self.all
    }

    /// Returns the graft that is a layer.
    pub(in crate::union) fn of_layer(&self, layer: u16) -> Option<&GraftState> {
        self.all.get(usize::from(layer.checked_sub(FIRST_GRAFT)?))
    }

    /// Puts the graft of a layer at a name of a directory.
    pub(in crate::union) fn set_place(&mut self, parent: NodeId, entry: &[u8], layer: u16) {
        self.places.insert((parent, entry.to_vec()), layer);
    }

    /// Returns the layer of the graft at a name of a directory.
    pub(in crate::union) fn at(&self, parent: NodeId, entry: &[u8]) -> Option<u16> {
        if self.places.is_empty() {
            return None;
        }
        self.places.get(&(parent, entry.to_vec())).copied()
    }
}
