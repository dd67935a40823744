//! The order of a walk through the tree: each directory before its entries, entries in the order of
//! the listing. find(1), tar(1), du(1) and all that descend while they read walk in this order.

use std::sync::Arc;

use crate::error::Result;
use crate::types::{Kind, Name, NodeId};
use crate::union::body::{LayerDir, Stack};
use crate::union::{PATH_MAX, Union};

/// The largest number of directories in one that are read ahead. A walk beyond them starts anew.
const SEEN: usize = 4096;

/// A place in a walk.
pub struct Walk {
    levels: Vec<Level>,
    path: Vec<u8>,
}

/// A directory that the walk is in, with its directories that are still to come.
struct Level {
    stack: Arc<Stack>,
    rest: std::vec::IntoIter<Name>,
    path_len: usize,
}

/// A directory that a walk reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The path below the root of the mount.
    pub path: Vec<u8>,
    /// The inode number as the mount shows it.
    pub ino: u64,
}

impl Walk {
    fn enter(&mut self, stack: Arc<Stack>, dirs: Vec<Name>) {
        let path_len = self.path.len();
        self.levels.push(Level { stack, rest: dirs.into_iter(), path_len });
    }

    fn descend(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }
}

impl Union {
    /// Returns the inode number that a known node shows.
    #[must_use]
    pub fn ino(&self, id: NodeId) -> Option<u64> {
        self.table.find(id).map(|node| node.ino)
    }

    /// Returns a walk that has just reached a directory.
    ///
    /// # Errors
    /// `ESTALE` for an unknown node, `ENOTDIR`; as listing the directories above.
    pub fn walk_from(&self, id: NodeId) -> Result<Walk> {
        let mut node = self.table.node(id)?;
        let (stack, mut above) = (node.dir()?.stack(), Vec::new());
        while node.id != NodeId::ROOT {
            let parent = self.table.node(node.parent)?;
            above.push((parent.dir()?.stack(), std::mem::take(&mut node.name)));
            node = parent;
        }
        let mut walk = Walk { levels: Vec::new(), path: Vec::new() };
        for (parent, name) in above.into_iter().rev() {
            let dirs = self.directories(&parent, Some(&name))?;
            walk.enter(parent, dirs);
            walk.descend(&name);
        }
        let dirs = self.directories(&stack, None)?;
        walk.enter(stack, dirs);
        Ok(walk)
    }

    /// Returns the next directory of a walk, or `None` at its end. Unreadable entries are skipped.
    pub fn walk_on(&self, walk: &mut Walk) -> Option<Step> {
        loop {
            let level = walk.levels.last_mut()?;
            walk.path.truncate(level.path_len);
            let Some(name) = level.rest.next() else {
                walk.levels.pop();
                continue;
            };
            if level.path_len + name.len() + 1 >= PATH_MAX {
                continue;
            }
            let Ok(Some(found)) = self.layers.resolve(&level.stack, &name) else { continue };
            let Some(stack) = found.stack else { continue };
            walk.descend(&name);
            let stack = Arc::new(stack);
            let dirs = self.directories(&stack, None).unwrap_or_default();
            walk.enter(stack, dirs);
            return Some(Step { path: walk.path.clone(), ino: found.ino });
        }
    }

    // Returns names of directories in the order of `readdir`, starting behind one of them.
    fn directories(&self, stack: &Stack, behind: Option<&Name>) -> Result<Vec<Name>> {
        let (mut dirs, mut passed) = (Vec::new(), behind.is_none());
        let mut see = |kind: Kind, name: &[u8]| {
            if kind == Kind::Dir && passed {
                dirs.push(Name::from_slice(name));
            }
            passed |= behind.is_some_and(|behind| name == &behind[..]);
            dirs.len() < SEEN
        };
        match self.lister().listed_alone(stack) {
            Some(LayerDir { dir, .. }) => {
                dir.list(0, &mut |entry| see(entry.kind, entry.name))?;
            }
            None => {
                self.lister().each(stack, &mut |item| see(item.kind, &item.name))?;
            }
        }
        Ok(dirs)
    }
}
