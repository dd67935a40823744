//! The result of resolving a name of the mount.

use crate::types::Stat;
use crate::union::body::{FIRST_GRAFT, Place, Stack, UPPER};

/// An object of the mount.
pub struct Found {
    /// Attributes in the layer that gives them.
    pub stat: Stat,
    /// The place of the attributes.
    pub place: Place,
    /// Inode number shown.
    pub ino: u64,
    /// The parts of a directory.
    pub stack: Option<Stack>,
    /// The place of the data of a file, if it is another one.
    pub data: Option<Place>,
    /// For an object in the index: the difference between its link count and the backing one.
    pub indexed: Option<i64>,
    /// The key of a name that is an object of its own, separate from the other names of its inode.
    pub split: Option<u64>,
}

impl Found {
    /// An object without parts in other layers.
    pub(in crate::union) const fn alone(
        stat: Stat,
        place: Place,
        ino: u64,
        stack: Option<Stack>,
    ) -> Self {
        Self { stat, place, ino, stack, data: None, indexed: None, split: None }
    }

    /// Whether a lower layer gives the attributes.
    pub(in crate::union) const fn is_lower(&self) -> bool {
        self.place.layer != UPPER && self.place.layer < FIRST_GRAFT
    }
}
