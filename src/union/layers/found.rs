//! What a name of the mount was found to mean.

use crate::types::Stat;
use crate::union::body::{FIRST_GRAFT, Place, Stack, UPPER};

/// An object of the mount.
pub struct Found {
    /// Attributes in the layer that gives them.
    pub stat: Stat,
    /// Where they stand.
    pub place: Place,
    /// Inode number shown.
    pub ino: u64,
    /// Parts, of a directory.
    pub stack: Option<Stack>,
    /// Where the data of a file is, if elsewhere.
    pub data: Option<Place>,
    /// The object is in the index; its link count differs from the backing one by this.
    pub indexed: Option<i64>,
    /// The key of a name that is an object of its own, apart from the other names of its inode.
    pub split: Option<u64>,
}

impl Found {
    /// An object with nothing in other layers.
    pub(in crate::union) const fn alone(
        stat: Stat,
        place: Place,
        ino: u64,
        stack: Option<Stack>,
    ) -> Self {
        Self { stat, place, ino, stack, data: None, indexed: None, split: None }
    }

    /// Whether a lower layer gives its attributes.
    pub(in crate::union) const fn is_lower(&self) -> bool {
        self.place.layer != UPPER && self.place.layer < FIRST_GRAFT
    }
}
