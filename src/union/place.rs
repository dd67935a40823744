//! The place of the object of a node, and its attributes there.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::Stat;
use crate::union::body::{DirBody, FileState, Life, Place};
use crate::union::lock::Held;
use crate::union::table::{Node, Table};

impl DirBody {
    /// Returns the attributes of a directory in its layer.
    pub(super) fn stat(&self) -> Result<Stat> {
        if let Some(removed) = self.removed.get() {
            return Ok(*removed);
        }
        self.step(|| self.stack().top().ok_or(Errno::STALE)?.stat(None))
    }
}

impl Table {
    /// Returns the place of a file: parked, indexed, or below its parent by its name.
    pub(super) fn place(&self, node: &Node, state: Option<&FileState>) -> Result<Place> {
        if state.is_some_and(|state| matches!(state.life, Life::Gone(_) | Life::Stale)) {
            return Err(Errno::STALE.into());
        }
        if let Some(place) = state.and_then(|state| state.place.as_ref()) {
            return Ok(place.clone());
        }
        let stack = self.node(node.parent)?.dir()?.stack();
        let layer = node.key.layer();
        let dir = stack.part(layer).ok_or(Errno::STALE)?;
        Ok(Place { layer, dir: Arc::clone(dir), name: node.name.clone() })
    }

    /// Returns the attributes, in its layer, of an object that is not a directory.
    pub(super) fn stat_file(&self, node: &Node, state: Option<&FileState>) -> Result<Stat> {
        match state {
            Some(state) => self.stat_state(node, state),
            None => self.place(node, None)?.stat(),
        }
    }

    /// [`Table::stat_file`] with the state at hand.
    pub(super) fn stat_state(&self, node: &Node, state: &FileState) -> Result<Stat> {
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

    /// Makes a pin lead to a file from now on.
    pub(super) fn pin(&self, held: &mut Held<'_>) -> Result<()> {
        let place = self.place(&held.node, Some(held.state))?;
        let dir = place.dir.pin(&place.name)?;
        held.state.place = Some(Place { dir, ..place });
        held.state.pinned = true;
        held.state.indexed = false;
        Ok(())
    }
}
