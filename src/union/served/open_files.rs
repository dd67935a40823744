//! Open files of grafts, each held by a descriptor.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::sync::Mutex;
use crate::types::NodeId;
use crate::union::handles::Handles;
use crate::union::layer::FileRef;

/// The open files of the grafts of a mount.
#[derive(Default)]
pub(in crate::union) struct Served {
    open: Mutex<HashMap<NodeId, Arc<Mutex<OpenFile>>>>,
}

/// State of an open file.
#[derive(Default)]
pub(in crate::union) struct OpenFile {
    /// The descriptor, and whether it can write.
    pub(super) file: Option<(FileRef, bool)>,
    /// Open handles.
    pub(super) opens: u32,
    /// Handles of programs that run from the file.
    pub(super) runs: u32,
    /// The registration with the kernel.
    pub(super) backing_id: Option<u32>,
    /// Whether the state has no open handle, and the table does not lead here any more.
    is_closed: bool,
}

fn closed() -> Arc<Mutex<OpenFile>> {
    Arc::new(Mutex::new(OpenFile::default()))
}

impl Served {
    /// Returns the state of a file, if it is open.
    pub(super) fn find(&self, id: NodeId) -> Option<Arc<Mutex<OpenFile>>> {
        self.open.lock().get(&id).map(Arc::clone)
    }

    /// Passes the state of an open file to `act`, a new one if the file was not open.
    pub(super) fn with<R>(
        &self,
        handles: &Handles,
        id: NodeId,
        act: impl FnOnce(&mut OpenFile) -> Result<R>,
    ) -> Result<R> {
        loop {
            let entry = Arc::clone(self.open.lock().entry(id).or_insert_with(closed));
            let mut open = entry.lock();
            if open.is_closed {
                continue;
            }
            let done = act(&mut open);
            if open.opens == 0 {
                open.is_closed = true;
                if let Some(backing_id) = open.backing_id.take() {
                    handles.unregister(backing_id);
                }
                self.open.lock().remove(&id);
            }
            return done;
        }
    }
}
