//! A directory whose entries are about to change.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::NodeId;
use crate::union::body::{Body, DirBody, Stack, UPPER};
use crate::union::layer::DirRef;

/// A directory whose entries are about to change, with its writable part.
pub(super) struct Parent {
    pub id: NodeId,
    pub body: Arc<Body>,
    pub stack: Arc<Stack>,
    pub dir: DirRef,
}

impl Parent {
    pub(super) fn body(&self) -> Result<&DirBody> {
        self.body.dir().ok_or_else(|| Errno::NOTDIR.into())
    }

    pub(super) fn layer(&self) -> u16 {
        self.stack.graft.unwrap_or(UPPER)
    }

    /// Returns this directory as it is now. `ENOENT` if it was removed.
    pub(super) fn current(&self) -> Result<Self> {
        let body = self.body()?;
        if body.removed.get().is_some() {
            return Err(Errno::NOENT.into());
        }
        let stack = body.stack();
        let dir = stack.upper.clone().ok_or(Errno::STALE)?;
        Ok(Self { id: self.id, body: Arc::clone(&self.body), stack, dir })
    }
}
