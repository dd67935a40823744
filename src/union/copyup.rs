//! Copy-up: copies an object of a lower layer into the upper, whole or not at all.
//!
//! The copy grows in the work directory; its data is durable before it is renamed into place, so
//! that after a power cut the path shows the old file or the new one. Attributes come last, since
//! writing clears set-id bits and capabilities. The parents are copied first.
//!
//! A stop between two steps leaves an unreachable copy in the work directory, which the next
//! mount removes.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Name, NodeId};
use crate::union::Union;
use crate::union::body::{DirBody, FIRST_GRAFT, Life, Place, Stack, UPPER};
use crate::union::layers::grafts::GraftState;
use crate::union::layers::stage::Data;
use crate::union::lock::Held;
use crate::union::table::Node;

impl Union {
    /// Makes sure that a directory has an upper part, and returns its parts.
    ///
    /// # Errors
    /// `EROFS`; `ENOENT` for a directory that is removed; errors of the backing.
    pub(super) fn copy_up_dir(&self, id: NodeId) -> Result<Arc<Stack>> {
        loop {
            let mut missing = Vec::new();
            let mut at = id;
            let ready = loop {
                let node = self.table.node(at)?;
                if let Some(stack) = self.ready(node.dir()?)? {
                    break stack;
                }
                missing.push(at);
                at = node.parent;
            };
            let copied =
                missing.into_iter().rev().try_fold(Some(ready), |above, id| match above {
                    Some(_) => {
                        self.table.with_dir(id, |node, body| self.copy_up_one_dir(node, body))
                    }
                    None => Ok(None),
                })?;
            // `None`: a directory was moved meanwhile below another that is not in the upper yet.
            if let Some(stack) = copied {
                return Ok(stack);
            }
        }
    }

    // Returns the parts of a directory, if it can be changed as it is.
    fn ready(&self, body: &DirBody) -> Result<Option<Arc<Stack>>> {
        let stack = body.stack();
        if let Some(graft) = stack.graft {
            let read_only = self.layers.graft(graft).is_none_or(GraftState::is_read_only);
            return if read_only { Err(Errno::ROFS.into()) } else { Ok(Some(stack)) };
        }
        self.layers.check_upper()?;
        if body.removed.get().is_some() {
            return Err(Errno::NOENT.into());
        }
        Ok(stack.upper.is_some().then_some(stack))
    }

    // Copies one directory up. Returns `None` if its parent is not in the upper.
    fn copy_up_one_dir(&self, node: &Node, body: &DirBody) -> Result<Option<Arc<Stack>>> {
        if let Some(stack) = self.ready(body)? {
            return Ok(Some(stack));
        }
        let stack = body.stack();
        let parent = self.table.node(node.parent)?;
        let Some(dir) = parent.dir()?.stack().upper.clone() else { return Ok(None) };
        let lower = stack.lowers.first().ok_or(Errno::STALE)?;
        let from = Place { layer: lower.layer, dir: Arc::clone(&lower.dir), name: Name::new() };
        let stat = self.layers.stored_stat(lower.layer, lower.dir.stat(None)?)?;
        let staged = self.layers.stage_dir(&from, &stat)?;
        self.table.add_key(node.id, staged.key);
        if let Err(error) = self.layers.publish(&staged.name, &parent, &dir, &node.name) {
            self.table.drop_key(node.id, staged.key);
            self.layers.remove_staged_dir(&staged.name)?;
            return Err(error);
        }
        let own = dir.dir_known(&node.name, &staged.stat);
        body.set_stack(Stack { upper: Some(own), ..(*stack).clone() });
        self.table.replace_key(node.id, staged.key);
        self.layers.set_impure(parent.dir()?, &dir)?;
        self.layers.count_copy();
        Ok(Some(body.stack()))
    }

    /// Makes sure that a file is in the upper with as much of its data as is needed.
    ///
    /// # Errors
    /// `EROFS`; `ESTALE` for a file that is gone; errors of the backing.
    pub(super) fn copy_up_file(&self, held: &mut Held<'_>, data: Data) -> Result<Place> {
        if matches!(held.state.life, Life::Gone(_)) {
            return Err(Errno::STALE.into());
        }
        let place = self.table.place(&held.node, Some(held.state))?;
        if place.layer >= FIRST_GRAFT {
            let read_only = self.layers.graft(place.layer).is_none_or(GraftState::is_read_only);
            return if read_only { Err(Errno::ROFS.into()) } else { Ok(place) };
        }
        self.layers.check_upper()?;
        if place.layer == UPPER {
            match (data, held.state.data.is_some()) {
                (Data::Whole, true) => self.layers.complete_data(&place, held.state)?,
                (Data::Dropped, true) => self.layers.drop_data(&place, held.state)?,
                _ => {}
            }
            return Ok(place);
        }
        self.copy_up(held, &place, data, true)
    }

    /// Copies a lower file up. Without `named` it appears only in the index.
    pub(super) fn copy_up(
        &self,
        held: &mut Held<'_>,
        from: &Place,
        data: Data,
        named: bool,
    ) -> Result<Place> {
        let nameless = held.state.life.is_nameless();
        let (parent, dir, entry) = if nameless || !named {
            (None, Arc::clone(self.layers.orphans()?), self.layers.unique_name())
        } else {
            let stack = self.copy_up_dir(held.node.parent)?;
            let dir = stack.upper.clone().ok_or(Errno::STALE)?;
            (Some(self.table.node(held.node.parent)?), dir, held.node.name.clone())
        };
        let stat = self.layers.stored_stat(from.layer, from.stat()?)?;
        let index = self.layers.index_for(from, &stat, nameless)?;
        let source = held.state.data.clone().unwrap_or_else(|| from.clone());
        let staged =
            self.layers.stage_file(&held.node, from, &stat, (&source, data), index.is_some())?;
        if !nameless {
            self.table.add_key(held.node.id, staged.key);
        }
        let place = Place { layer: UPPER, dir, name: entry };
        let moved = self.layers.publish_file(&staged, index.as_ref(), parent.as_ref(), &place);
        if let Err(error) = moved {
            self.table.drop_key(held.node.id, staged.key);
            self.layers.work()?.unlink(&staged.name)?;
            return Err(error);
        }
        if nameless {
            self.table.set_key(held.node.id, staged.key);
            held.state.life = Life::Parked;
        } else {
            self.table.replace_key(held.node.id, staged.key);
        }
        if held.node.key.is_split() {
            // Other names keep the number of the lower object.
            let ino = self.layers.compose_ino(staged.key.fs(), staged.key.ino);
            self.table.set_ino(held.node.id, ino);
        }
        held.node = self.table.node(held.node.id)?;
        held.state.file = None;
        held.state.data = staged.data;
        self.layers.count_copy();
        if let Some(indexed) = index {
            held.state.indexed = true;
            held.state.nlink_diff = i64::from(stat.nlink) - 1;
            held.state.place = Some(indexed.clone());
            if let Some(parent) = &parent {
                self.layers.name_indexed(held.state, stat.nlink, parent, &place)?;
                self.layers.set_impure(parent.dir()?, &place.dir)?;
            }
            return Ok(indexed);
        }
        if let Some(parent) = &parent {
            self.layers.set_impure(parent.dir()?, &place.dir)?;
        }
        held.state.place = parent.is_none().then(|| place.clone());
        Ok(place)
    }
}
