//! A group that a mount shows on every object of its grafts, whatever the objects have.
//!
//! The group has the rights of the owner, and new objects in a directory seem to inherit it. The
//! kernel checks permissions by what is shown. The objects keep their own group and mode, so that
//! mounts with other groups can show them at the same time.

use crate::types::{AttrChange, Kind, S_ISGID, Stat};
use crate::union::body::FIRST_GRAFT;
use crate::union::layers::Layers;

/// The permission bits of the group.
const GROUP_BITS: u32 = 0o070;

/// The mode that an object of a kind shows: its group has the rights of the owner.
const fn shown_mode(mode: u32, kind: Kind) -> u32 {
    match kind {
        Kind::Symlink => mode,
        Kind::Dir => widened(mode) | S_ISGID,
        _ => widened(mode),
    }
}

const fn widened(mode: u32) -> u32 {
    mode & !GROUP_BITS | (mode >> 3) & GROUP_BITS
}

impl Layers {
    /// Whether the objects of a layer show a group that is not theirs.
    pub(in crate::union) const fn shows_group(&self, layer: u16) -> bool {
        layer >= FIRST_GRAFT && self.options.group.is_some()
    }

    /// Returns attributes with the group that the layer shows.
    pub(super) fn with_group(&self, layer: u16, stat: Stat) -> Stat {
        match self.options.group.filter(|_| self.shows_group(layer)) {
            Some(gid) => Stat { gid, mode: shown_mode(stat.mode, stat.kind()), ..stat },
            None => stat,
        }
    }

    /// Removes from a change what is only shown: a program that copies a mode, or sets the group
    /// that it sees, leaves those of the object (`stat`) as they are.
    pub(in crate::union) fn without_group(&self, stat: &Stat, change: AttrChange) -> AttrChange {
        let mut change = change;
        if change.gid == self.options.group {
            change.gid = None;
        }
        if let Some(mode) = change.mode
            && stat.kind() != Kind::Symlink
            && mode & GROUP_BITS == widened(mode) & GROUP_BITS
        {
            let mut kept = GROUP_BITS;
            if stat.kind() == Kind::Dir && mode & S_ISGID != 0 {
                kept |= S_ISGID;
            }
            change.mode = Some(mode & !kept | stat.mode & kept);
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_has_the_rights_of_the_owner() {
        assert_eq!(shown_mode(0o100_600, Kind::File), 0o100_660);
        assert_eq!(shown_mode(0o100_705, Kind::File), 0o100_775);
        assert_eq!(shown_mode(0o100_474, Kind::File), 0o100_444, "and no more");
        assert_eq!(shown_mode(0o040_700, Kind::Dir), 0o042_770);
        assert_eq!(shown_mode(0o120_777, Kind::Symlink), 0o120_777);
    }
}
