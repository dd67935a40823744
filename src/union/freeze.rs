//! The upper of a running mount becomes a layer, and an empty directory the new upper.
//!
//! What the mount shows does not change, so the caches of the kernel stay valid. Nodes keep their
//! numbers; only their places change, in memory. The caller holds the union alone meanwhile.
//!
//! The index belongs to the upper and is no part of a layer. So before the upper is frozen each
//! file in the index needs all of its names there; after it they are ordinary hard links of the
//! layer. [`Union::name_indexed`] finds the names, which needs a walk of the whole tree, and only
//! if there is such a file.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Kind, Name, NodeId, name};
use crate::union::Union;
use crate::union::body::{Body, DirBody, FIRST_GRAFT, FileState, Io, Life, Place, Stack, UPPER};
use crate::union::claims::Claims;
use crate::union::config::Upper;
use crate::union::layers::Layers;
use crate::union::layers::freeze::Next;
use crate::union::table::{Key, Node};

impl Union {
    /// Makes the upper the topmost lower layer, and an empty directory the upper. `commit` is
    /// called when nothing else can fail, and decides. Call [`Union::name_indexed`] before, beside
    /// other requests: what it leaves to do is done here.
    ///
    /// A file of the index counts the names of its lower file, also those that another layer hides.
    /// In the layer it counts the names that it has.
    ///
    /// # Errors
    /// `EROFS`, `EXDEV`, `EMFILE`, `EOPNOTSUPP`; `EAGAIN` for an open file without a known name;
    /// errors of `commit`. After an error nothing has changed.
    pub fn freeze(&mut self, upper: &Upper, commit: impl FnOnce() -> Result<()>) -> Result<()> {
        let indexed = self.layers.index_entries()?;
        self.name_all(&indexed)?;
        let next = self.layers.next(upper)?;
        let nodes: Vec<Node> = self.own_nodes().collect();
        if nodes.iter().any(is_unknown) {
            return Err(Errno::AGAIN.into());
        }
        if nodes.iter().any(is_passed) {
            return Err(Errno::OPNOTSUPP.into());
        }
        let root = Key::new(UPPER, 0, next.root().stat(None)?.ino);
        self.layers.dress(&next)?;
        commit()?;
        self.layers.drop_index(&indexed);
        for node in &nodes {
            let key = match node.id {
                NodeId::ROOT => Some(root),
                _ => Some(node.key)
                    .filter(|key| key.layer() == UPPER)
                    .and_then(|key| stays_linked(node).then(|| key.in_layer(next.frozen().layer))),
            };
            match node.body.as_deref() {
                Some(Body::Dir(body)) => restack(node.id, body, &next),
                Some(Body::File(file)) => file.with(|state| settle(state, node.key)),
                None => {}
            }
            if let Some(key) = key {
                self.table.rekey(node.id, key);
            }
        }
        self.layers.freeze(next);
        self.listings.kept().drop_large();
        self.claims = Claims::default();
        Ok(())
    }

    /// Gives each file of the index all of its names in the upper, and finds a name for each file
    /// whose known name was removed. Does nothing if there is no such file.
    ///
    /// # Errors
    /// As listing directories and link(2).
    pub fn name_indexed(&self) -> Result<()> {
        self.name_all(&self.layers.index_entries()?)
    }

    /// The nodes of the union's own layers, without those of grafts, which no freeze touches.
    fn own_nodes(&self) -> impl Iterator<Item = Node> {
        let known = self.table.ids().into_iter().filter_map(|id| self.table.find(id));
        known.filter(|node| node.key.layer() < FIRST_GRAFT)
    }

    fn name_all(&self, indexed: &[Place]) -> Result<()> {
        if self.layers.are_named(indexed)? && !self.own_nodes().any(|node| is_unknown(&node)) {
            return Ok(());
        }
        self.table.add_lookup(NodeId::ROOT);
        let mut dirs = vec![NodeId::ROOT];
        while let Some(id) = dirs.pop() {
            let named = self.name_entries(id, &mut dirs);
            self.forget(id, 1);
            if let Err(error) = named
                && !error.is(Errno::STALE)
                && !error.is(Errno::NOENT)
            {
                dirs.into_iter().for_each(|id| self.forget(id, 1));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Names the files of a directory; its directories are added to `dirs`, each with a lookup.
    fn name_entries(&self, id: NodeId, dirs: &mut Vec<NodeId>) -> Result<()> {
        let node = self.table.node(id)?;
        let body = node.dir()?;
        let entries = {
            let _entries = body.reading();
            self.lister().entries(&body.stack())?
        };
        for entry in entries {
            let found = {
                let _entries = body.reading();
                self.lookup_in(&node, &entry)?
            };
            let Some(found) = found else { continue };
            if self.table.find(found.node).is_some_and(|node| node.key.layer() >= FIRST_GRAFT) {
                self.forget(found.node, 1);
                continue;
            }
            if found.stat.kind() == Kind::Dir {
                dirs.push(found.node);
                continue;
            }
            let indexed = self
                .table
                .with_object(found.node, |_, state| Ok(state.is_some_and(|state| state.indexed)))?;
            let named = if indexed { self.name_entry(id, &entry) } else { Ok(()) };
            self.forget(found.node, 1);
            named?;
        }
        Ok(())
    }

    fn name_entry(&self, id: NodeId, entry: &Name) -> Result<()> {
        self.with_parent(id, |parent| {
            let node = self.table.node(id)?;
            let Some(found) = self.lookup_in(&node, entry)? else { return Ok(()) };
            let named = self.table.with_file(found.node, |held| match held.state.place.clone() {
                Some(place) if held.state.indexed => {
                    self.copy_up_name(held, &place, parent, entry)?;
                    self.set_impure_for(parent)
                }
                _ => Ok(()),
            });
            self.forget(found.node, 1);
            named
        })
    }
}

/// Whether an open file has names, and none of them is known.
fn is_unknown(node: &Node) -> bool {
    let Some(file) = node.body.as_deref().and_then(Body::file) else { return false };
    file.with(|state| state.life == Life::Linked && state.has_stale_name() && state.opens > 0)
}

/// Whether the kernel writes to a file by itself, so that it would write to the layer.
fn is_passed(node: &Node) -> bool {
    let Some(file) = node.body.as_deref().and_then(Body::file) else { return false };
    file.with(|state| matches!(state.io, Io::Passthrough { .. }))
}

/// Whether the object of a node is part of the layer that the upper becomes.
fn stays_linked(node: &Node) -> bool {
    match node.body.as_deref() {
        Some(Body::File(file)) => !file.with(|state| state.life.is_nameless()),
        Some(Body::Dir(body)) => body.removed.get().is_none(),
        None => true,
    }
}

fn restack(id: NodeId, body: &DirBody, next: &Next) {
    let stack = body.stack();
    let Some(dir) = stack.upper.clone().filter(|_| body.removed.get().is_none()) else { return };
    let mut frozen = next.frozen().clone();
    if id != NodeId::ROOT {
        frozen = frozen.within(dir);
    }
    let upper = (id == NodeId::ROOT).then(|| Arc::clone(next.root()));
    let lowers = std::iter::once(frozen).chain(stack.lowers.iter().cloned()).collect();
    body.restack(Stack { upper, lowers, ..Stack::default() });
    // A listing that is open goes on at another position, and may have entries twice: the kernel
    // does not keep it for others.
    body.changed();
}

/// The state of a file whose object is in a layer from now on.
fn settle(state: &mut FileState, key: Key) {
    if state.life.is_nameless() || key.layer() != UPPER {
        return;
    }
    if state.has_stale_name() || matches!(state.life, Life::Detached) {
        // Nothing has it open, so the next lookup makes a new node.
        state.life = Life::Stale;
    }
    state.file = None;
    state.place = None;
    (state.indexed, state.pinned, state.misnamed, state.nlink_diff) = (false, false, false, 0);
}

impl Layers {
    /// The files in the index.
    fn index_entries(&self) -> Result<Vec<Place>> {
        let Some(index) = self.index() else { return Ok(Vec::new()) };
        let mut listed = Vec::new();
        index.list(0, &mut |entry| {
            listed.push(Place::new(UPPER, index, &name(entry.name)));
            true
        })?;
        let mut entries = Vec::with_capacity(listed.len());
        for place in listed {
            if self.is_index_entry(&place, &place.stat()?)? {
                entries.push(place);
            }
        }
        Ok(entries)
    }

    /// Whether files in the index have all of their names in the upper.
    fn are_named(&self, indexed: &[Place]) -> Result<bool> {
        for place in indexed {
            // The link in the index is no name.
            if self.read_nlink_diff(place, &place.stat()?)? >= 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes entries of the index whose files have all of their names in the upper.
    fn drop_index(&self, entries: &[Place]) {
        for place in entries {
            if let Err(error) = place.dir.unlink(&place.name) {
                tracing::warn!(%error, "a file of a layer counts a name too many");
            }
        }
    }
}
