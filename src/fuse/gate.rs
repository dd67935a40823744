//! The way to the union: requests pass side by side, and a change of the layers passes alone.

use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::union::Union;

/// The union of a session.
pub struct Gate(RwLock<Union>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate before a union.
    #[must_use]
    pub const fn new(union: Union) -> Self {
        Self(RwLock::new(union))
    }

    /// The union, beside other requests. A request takes it once, and holds it until its reply.
    pub fn enter(&self) -> RwLockReadGuard<'_, Union> {
        self.0.read()
    }

    /// The union, for a request that may hold it already.
    pub fn enter_again(&self) -> RwLockReadGuard<'_, Union> {
        self.0.read_recursive()
    }

    /// The union alone: requests that are under way end first, and new ones wait. `None` if they do
    /// not end in time; a request may wait for one that waits here.
    pub fn alone(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, Union>> {
        self.0.try_write_for(patience)
    }
}
