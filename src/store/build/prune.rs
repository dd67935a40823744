//! Removal of directories that exist only because of whiteouts.
//!
//! Some programs write a whiteout of a directory and, before or after it, whiteouts of its content
//! (umoci issue 254). The inner whiteouts imply the directory, which the outer one removes. As in
//! umoci and podman, the directory is removed, in whichever order they come.

use super::{Content, Directory, LayerBuilder, Node, Slot};

impl LayerBuilder {
    /// Removes directories that a whiteout names or that lie in an opaque directory, if the stream
    /// had nothing for them but whiteouts inside.
    pub(super) fn prune(&mut self) {
        let bare = self.bare();
        if !bare.contains(&true) {
            return;
        }
        let is_bare = |slot: &Slot| match slot {
            Slot::Node(node) if bare.get(*node) == Some(&true) => Some(*node),
            _ => None,
        };
        // Below these, the layers below are hidden. A directory comes before what is in it.
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

    /// Whether each node is a directory that has no entry of its own and holds nothing but
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
