//! Lower directories, each with one directory of the upper that leads to it.
//!
//! A directory of the upper leads to a lower one by its name or by a redirect. A copy of it that
//! was made while the upper was not mounted (`cp -a` copies the marks too) leads to the same lower
//! directory: an object below it would be in two places, and a change could reach the upper in the
//! wrong place. So the second directory found is refused, as in the kernel (`ovl_verify_inode()` in
//! fs/overlayfs/inode.c).

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::types::NodeId;
use crate::union::body::{Stack, UPPER};
use crate::union::layers::found::Found;
use crate::union::table::{Node, Table};

/// The number of claims that are kept before the first search for outdated ones.
const FEW: usize = 4096;

/// Which node leads to which lower directory, by the inode number that both show.
#[derive(Default)]
pub(super) struct Claims {
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    by_number: HashMap<u64, NodeId>,
    // The number of holders at which outdated ones are dropped.
    full: usize,
}

impl Claims {
    /// Makes a node the holder of a number, unless another node, for which `holds` is true, holds
    /// it.
    fn claim(&self, ino: u64, id: NodeId, holds: impl Fn(NodeId, u64) -> bool) -> Option<NodeId> {
        let mut holders = self.holders.lock();
        if holders.by_number.len() >= holders.full.max(FEW) {
            holders.by_number.retain(|ino, id| holds(*id, *ino));
            holders.full = holders.by_number.len() * 2;
        }
        let holder = *holders.by_number.entry(ino).or_insert(id);
        if holder == id || !holds(holder, ino) {
            holders.by_number.insert(ino, id);
            return None;
        }
        Some(holder)
    }

    /// Checks that a directory that was just entered is the only one that leads to its lower
    /// directory.
    ///
    /// # Errors
    /// `EIO` if another one does; the key of the node is removed then, so that the next lookup is
    /// refused again.
    pub(super) fn claim_lower(&self, table: &Table, node: &Node, found: &Found) -> Result<()> {
        let merges = found.stack.as_ref().is_some_and(Stack::has_lower);
        if found.place.layer != UPPER || !merges {
            return Ok(());
        }
        let holds = |id: NodeId, ino: u64| {
            table.find(id).is_some_and(|other| other.ino == ino && other.key != node.key)
        };
        let Some(holder) = self.claim(node.ino, node.id, holds) else { return Ok(()) };
        let other = table.find(holder).map(|other| other.name).unwrap_or_default();
        table.clear_key(node.id);
        Err(Error::Corrupt {
            what: format!(
                "directory {:?} of the upper leads to the same lower directory as {:?}",
                String::from_utf8_lossy(&found.place.name),
                String::from_utf8_lossy(&other)
            ),
        })
    }
}
