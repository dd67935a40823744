//! The layers of an object of the mount: used to make a layer of the upper.

use crate::error::Result;
use crate::types::NodeId;
use crate::union::Union;
use crate::union::layer::DirRef;

impl Union {
    /// Returns the part of a directory of the mount in a layer: 0 is the upper, 1 the topmost
    /// lower.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`.
    pub fn part(&self, id: NodeId, layer: u16) -> Result<Option<DirRef>> {
        let node = self.table.node(id)?;
        Ok(node.dir()?.stack().part(layer).cloned())
    }

    /// Whether an object of the mount is in a layer.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn is_in(&self, id: NodeId, layer: u16) -> Result<bool> {
        Ok(self.table.node(id)?.key.layer() == layer)
    }

    /// Whether a directory of the mount has parts below a layer.
    ///
    /// # Errors
    /// As [`Union::part`].
    pub fn has_parts_below(&self, id: NodeId, layer: u16) -> Result<bool> {
        let node = self.table.node(id)?;
        Ok(node.dir()?.stack().lowers.iter().any(|lower| lower.layer > layer))
    }
}
