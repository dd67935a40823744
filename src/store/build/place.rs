//! Path resolution in a layer that is being built.
//!
//! Symbolic links of the layer are followed as if the layer were a root directory: an absolute
//! target begins at its root, and `..` never leaves it. Links of layers below are ignored, since a
//! layer stands for itself. The last component is never followed.

use super::{Content, LayerBuilder, Node, NodeId, Slot, refuse};
use crate::store::error::StoreError;
use crate::types::marks::WH_PREFIX;
use crate::types::{NAME_MAX, Name, name};

/// Limit of symbolic links on one path, as in Linux (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// The deepest directory that an import may make, with symbolic links resolved.
const DEPTH_MAX: usize = 1024;

/// A walk from the root, which symbolic links may redirect.
struct Way {
    /// The directories from the root to the current one.
    trail: Vec<NodeId>,
    /// The components still to be walked, in reverse order.
    rest: Vec<Name>,
    links: u32,
}

/// The result of walking one component.
enum Step {
    /// No component is left.
    End,
    /// The component was walked.
    Done,
    /// This layer has no directory of this name here.
    Missing(Name),
    /// Something that is not a directory is in the way.
    Blocked(&'static str),
}

impl Way {
    fn new(path: &[Name]) -> Self {
        Self { trail: vec![0], rest: path.iter().rev().cloned().collect(), links: 0 }
    }

    fn here(&self) -> NodeId {
        self.trail.last().copied().unwrap_or(0)
    }

    fn enter(&mut self, node: NodeId) -> Step {
        if self.trail.len() > DEPTH_MAX {
            return Step::Blocked("it is more than 1024 levels deep");
        }
        self.trail.push(node);
        Step::Done
    }

    fn follow(&mut self, target: &[u8]) -> Step {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Step::Blocked("too many symbolic links lead to its parent");
        }
        if target.starts_with(b"/") {
            self.trail.truncate(1);
        }
        self.rest.extend(target.split(|byte| *byte == b'/').rev().map(name));
        Step::Done
    }
}

impl LayerBuilder {
    fn step(&self, way: &mut Way) -> Step {
        let Some(component) = way.rest.pop() else { return Step::End };
        match &component[..] {
            b"" | b"." => return Step::Done,
            b".." => {
                way.trail.truncate(way.trail.len().saturating_sub(1).max(1));
                return Step::Done;
            }
            long if long.len() > NAME_MAX || long.starts_with(WH_PREFIX) => {
                return Step::Blocked("a symbolic link leads to a name that no layer can have");
            }
            _ => {}
        }
        let Some(Node { content: Content::Dir(here), .. }) = self.nodes.get(way.here()) else {
            return Step::Blocked("its parent is not a directory");
        };
        let node = match here.entries.get(&component) {
            Some(Slot::Node(node)) => *node,
            Some(Slot::Link(_)) => return Step::Blocked("a link where a directory must be"),
            Some(Slot::Whiteout) | None => return Step::Missing(component),
        };
        match self.nodes.get(node).map(|found| &found.content) {
            Some(Content::Dir(_)) => way.enter(node),
            Some(Content::Symlink(target)) => way.follow(target),
            _ => Step::Blocked("its parent is not a directory"),
        }
    }

    /// Returns the directory at a path, and makes missing directories.
    pub(super) fn walk(&mut self, path: &[Name]) -> Result<NodeId, StoreError> {
        let mut way = Way::new(path);
        loop {
            let step = match self.step(&mut way) {
                Step::Missing(component) => {
                    let dir = way.here();
                    let slot = self.entries(dir).and_then(|entries| entries.get(&component));
                    let is_hidden = matches!(slot, Some(Slot::Whiteout));
                    let made = self.make_dir(dir, &component, is_hidden)?;
                    way.enter(made)
                }
                step => step,
            };
            match step {
                Step::End => return Ok(way.here()),
                Step::Blocked(what) => return Err(refuse(path, what)),
                Step::Done | Step::Missing(_) => {}
            }
        }
    }

    /// Returns the directory that holds the object at a path, and the name in it.
    pub(super) fn parent<'p>(
        &mut self,
        path: &'p [Name],
    ) -> Result<(NodeId, &'p Name), StoreError> {
        let (name, parent) =
            path.split_last().ok_or_else(|| refuse(path, "the root is not an entry"))?;
        Ok((self.walk(parent)?, name))
    }

    /// Returns the object at a path of this layer.
    pub(super) fn find(&self, path: &[Name]) -> Option<NodeId> {
        let Some((name, parent)) = path.split_last() else { return Some(0) };
        let mut way = Way::new(parent);
        loop {
            match self.step(&mut way) {
                Step::End => break,
                Step::Done => {}
                Step::Missing(_) | Step::Blocked(_) => return None,
            }
        }
        let Content::Dir(dir) = &self.nodes.get(way.here())?.content else { return None };
        match dir.entries.get(name) {
            Some(Slot::Node(node)) => Some(*node),
            _ => None,
        }
    }
}
