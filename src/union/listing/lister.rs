//! Questions of a listing, which are answered from the layers and from known nodes.

use crate::union::body::{LayerDir, Stack};
use crate::union::layers::Layers;
use crate::union::table::Table;

/// What answers the questions of a listing.
#[derive(Clone, Copy)]
pub(in crate::union) struct Lister<'a> {
    pub(super) layers: &'a Layers,
    pub(super) table: &'a Table,
}

impl<'a> Lister<'a> {
    /// A lister of a mount with these layers and nodes.
    pub(in crate::union) const fn new(layers: &'a Layers, table: &'a Table) -> Self {
        Self { layers, table }
    }

    /// The only part of a directory, if that is of a lower layer and will stay so.
    pub(in crate::union) fn listed_alone<'b>(&self, stack: &'b Stack) -> Option<&'b LayerDir> {
        stack.lowers.first().filter(|_| self.layers.is_read_only() && stack.lowers.len() == 1)
    }
}
