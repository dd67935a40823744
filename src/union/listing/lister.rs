//! Access of listings to the layers and to the known nodes.

use crate::union::body::{LayerDir, Stack};
use crate::union::layers::Layers;
use crate::union::table::Table;

/// The layers and nodes that a listing reads.
#[derive(Clone, Copy)]
pub(in crate::union) struct Lister<'a> {
    pub(super) layers: &'a Layers,
    pub(super) table: &'a Table,
}

impl<'a> Lister<'a> {
    /// Makes the lister of a mount with these layers and nodes.
    pub(in crate::union) const fn new(layers: &'a Layers, table: &'a Table) -> Self {
        Self { layers, table }
    }

    /// Returns the only part of a directory, if it is in a lower layer and will stay the only one.
    pub(in crate::union) fn listed_alone<'b>(&self, stack: &'b Stack) -> Option<&'b LayerDir> {
        let alone = |lower: &&LayerDir| !self.layers.stores_numbers(lower.layer);
        let single = self.layers.is_read_only() && stack.lowers.len() == 1;
        stack.lowers.first().filter(|_| single).filter(alone)
    }
}
