//! Which layers an object of the mount is made of: for whoever makes a layer of the upper.

use crate::error::Result;
use crate::types::NodeId;
use crate::union::layer::DirRef;
use crate::union::{Union, dir_of};

impl Union {
    /// The part that a layer has in a directory of the mount: 0 is the upper, 1 the topmost
    /// lower.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`.
    pub fn part(&self, id: NodeId, layer: u16) -> Result<Option<DirRef>> {
        let node = self.node(id)?;
        Ok(dir_of(&node)?.stack().part(layer).cloned())
    }

    /// States whether an object of the mount stands in a layer.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn is_in(&self, id: NodeId, layer: u16) -> Result<bool> {
        Ok(self.node(id)?.key.layer() == layer)
    }

    /// States whether a directory of the mount has parts in other layers.
    ///
    /// # Errors
    /// As [`Union::part`].
    pub fn has_other_parts(&self, id: NodeId, layer: u16) -> Result<bool> {
        let node = self.node(id)?;
        Ok(dir_of(&node)?.stack().lowers.iter().any(|lower| lower.layer != layer))
    }
}
