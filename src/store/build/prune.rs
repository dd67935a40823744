//! Directories that are there for the sake of whiteouts alone.
//!
//! Some writers whiteout a directory and, before or after it, what was in it (umoci issue 254).
//! The whiteouts inside imply the directory, which the other one removes: as umoci and podman do
//! it, the directory is gone, in whichever order they come.

use super::{Content, Directory, LayerBuilder, Node, Slot};

impl LayerBuilder {
    /// Takes away directories that a whiteout names, or that lie in an opaque one, and of which
    /// the stream said nothing but that names in them are gone.
    pub(super) fn prune(&mut self) {
        let bare = self.bare();
        if !bare.contains(&true) {
            return;
        }
        let is_bare = |slot: &Slot| match slot {
            Slot::Node(node) if bare.get(*node) == Some(&true) => Some(*node),
            _ => None,
        };
        // Below these nothing of the layers below is seen. A directory comes before what is in it.
        let mut cut = vec![false; self.nodes.len()];
        for number in 0..self.nodes.len() {
            let Some(Node { content: Content::Dir(dir), .. }) = self.nodes.get(number) else {
                continue;
            };
            let below = cut.get(number) == Some(&true) || dir.opaque;
            let mut gone = Vec::new();
            for (name, slot) in &dir.entries {
                if let Slot::Node(node) = slot
                    && let Some(cut) = cut.get_mut(*node)
                {
                    *cut = below;
                }
                let Some(found) = is_bare(slot).and_then(|node| self.nodes.get(node)) else {
                    continue;
                };
                let Content::Dir(Directory { opaque, hidden, .. }) = found.content else {
                    continue;
                };
                if hidden || (below && !opaque) {
                    gone.push(name.clone());
                }
            }
            let Some(entries) = self.entries(number) else { continue };
            for name in gone {
                entries.insert(name, Slot::Whiteout);
            }
        }
    }

    /// Which nodes are directories of which nothing was said, and which hold nothing but
    /// whiteouts and such directories.
    fn bare(&self) -> Vec<bool> {
        let mut bare = vec![false; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate().rev() {
            let Content::Dir(Directory { entries, stated: false, .. }) = &node.content else {
                continue;
            };
            let is_nothing = |slot: &Slot| match slot {
                Slot::Whiteout => true,
                Slot::Node(node) => bare.get(*node) == Some(&true),
                Slot::Link(_) => false,
            };
            let found = number > 0 && entries.values().all(is_nothing);
            if let Some(place) = bare.get_mut(number) {
                *place = found;
            }
        }
        bare
    }
}
