//! Objects that may not change: immutable and append-only ones (chattr(1)).
//!
//! The kernel checks these flags on the inode before it calls a file system, and a FUSE inode has
//! none. The file system of the upper refuses changes by itself; for objects of lower layers, which
//! are copied up to be changed, the rules of the VFS are repeated here. As in the kernel's
//! overlayfs the flags survive a copy-up in the mark `protattr` (`ovl_set_protattr()` in
//! fs/overlayfs/util.c), since a copy with the flags could be neither named nor marked.

use std::collections::HashMap;

use crate::error::{Errno, Result};
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::types::{AttrChange, NodeId, SetTime, Stat};
use crate::union::body::FIRST_GRAFT;

/// `FS_APPEND_FL` and `FS_IMMUTABLE_FL` of the kernel's include/uapi/linux/fs.h.
const APPEND_FLAG: u32 = 0x20;
const IMMUTABLE_FLAG: u32 = 0x10;
/// `FS_XFLAG_APPEND` and `FS_XFLAG_IMMUTABLE` of the same file.
const APPEND_XFLAG: u32 = 0x10;
const IMMUTABLE_XFLAG: u32 = 0x08;

/// The flags of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flags {
    immutable: bool,
    append_only: bool,
}

/// The nodes that have flags.
#[derive(Default)]
pub(super) struct Fixed {
    any: AtomicBool,
    nodes: Mutex<HashMap<NodeId, Flags>>,
}

impl Flags {
    const fn of(stat: &Stat) -> Self {
        Self { immutable: stat.immutable, append_only: stat.append_only }
    }

    const fn is_free(self) -> bool {
        !self.immutable && !self.append_only
    }

    const fn allow(self, adds: bool) -> bool {
        !self.immutable && (adds || !self.append_only)
    }
}

impl Fixed {
    fn of(&self, id: NodeId) -> Flags {
        if !self.any.load(Ordering::Acquire) {
            return Flags::default();
        }
        self.nodes.lock().get(&id).copied().unwrap_or_default()
    }

    fn set(&self, id: NodeId, flags: Flags) {
        if !flags.is_free() {
            self.nodes.lock().insert(id, flags);
            self.any.store(true, Ordering::Release);
        } else if self.any.load(Ordering::Acquire) {
            self.nodes.lock().remove(&id);
        }
    }

    /// Refuses a change of an object that may not change. With `adds`, the change is one that an
    /// append-only object permits: data at the end of a file, an entry of a directory.
    pub(super) fn may_change(&self, id: NodeId, adds: bool) -> Result<()> {
        if self.of(id).allow(adds) { Ok(()) } else { Err(Errno::PERM.into()) }
    }

    /// Whether an object has flags.
    pub(super) fn is_fixed(&self, id: NodeId) -> bool {
        !self.of(id).is_free()
    }

    /// Notes the flags of an object that was found in a layer.
    pub(super) fn note(&self, id: NodeId, layer: u16, stat: &Stat) {
        if layer < FIRST_GRAFT {
            self.set(id, Flags::of(stat));
        }
    }

    /// Drops the flags of a node that is not known any more.
    pub(super) fn drop_unless(&self, id: NodeId, is_known: impl FnOnce() -> bool) {
        if self.any.load(Ordering::Acquire) && !is_known() {
            self.set(id, Flags::default());
        }
    }

    /// The flags of an inode as a user sees them (`FS_IOC_GETFLAGS`).
    pub(super) fn shown_flags(&self, id: NodeId, flags: u32) -> u32 {
        let Flags { immutable, append_only } = self.of(id);
        flags
            | if immutable { IMMUTABLE_FLAG } else { 0 }
            | if append_only { APPEND_FLAG } else { 0 }
    }

    /// [`Fixed::shown_flags`] in the bits of `FS_IOC_FSGETXATTR`.
    pub(super) fn shown_xflags(&self, id: NodeId, xflags: u32) -> u32 {
        let Flags { immutable, append_only } = self.of(id);
        xflags
            | if immutable { IMMUTABLE_XFLAG } else { 0 }
            | if append_only { APPEND_XFLAG } else { 0 }
    }

    /// Notes the flags of an object, after they were set on the inode of a copy.
    pub(super) fn flags_changed(&self, id: NodeId, immutable: bool, append_only: bool) {
        self.set(id, Flags { immutable, append_only });
    }

    /// [`Fixed::flags_changed`] with the flags of `FS_IOC_SETFLAGS`.
    pub(super) fn set_shown_flags(&self, id: NodeId, flags: u32) {
        self.flags_changed(id, flags & IMMUTABLE_FLAG != 0, flags & APPEND_FLAG != 0);
    }

    /// [`Fixed::flags_changed`] with the flags of `FS_IOC_FSSETXATTR`.
    pub(super) fn set_shown_xflags(&self, id: NodeId, xflags: u32) {
        self.flags_changed(id, xflags & IMMUTABLE_XFLAG != 0, xflags & APPEND_XFLAG != 0);
    }
}

/// Refuses to remove or to rename an object that may not change (`may_delete()` in the kernel's
/// fs/namei.c).
pub(super) fn may_leave(stat: &Stat) -> Result<()> {
    if Flags::of(stat).is_free() { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// Whether an append-only object permits a change of attributes: times set to now (`may_setattr()`
/// in the kernel's fs/attr.c).
pub(super) fn is_touch(change: &AttrChange) -> bool {
    let now = |time: Option<SetTime>| matches!(time, None | Some(SetTime::Now));
    let AttrChange { mode, uid, gid, size, atime, mtime } = *change;
    (mode, uid, gid, size) == (None, None, None, None) && now(atime) && now(mtime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Time;

    #[test]
    fn flags_refuse_as_the_kernel_does() {
        let flags = |immutable, append_only| Flags { immutable, append_only };
        assert!(flags(false, false).allow(false));
        assert!(flags(false, true).allow(true) && !flags(false, true).allow(false));
        assert!(!flags(true, false).allow(true) && !flags(true, true).allow(true));
        let free = Stat::default();
        may_leave(&free).unwrap();
        may_leave(&Stat { append_only: true, ..free }).unwrap_err();
        may_leave(&Stat { immutable: true, ..free }).unwrap_err();
    }

    #[test]
    fn times_of_now_are_a_touch() {
        let now = AttrChange { atime: Some(SetTime::Now), ..AttrChange::default() };
        assert!(is_touch(&now));
        let given = AttrChange { mtime: Some(SetTime::At(Time::default())), ..now };
        assert!(!is_touch(&given));
        assert!(!is_touch(&AttrChange { mode: Some(0o600), ..now }));
        assert!(!is_touch(&AttrChange { size: Some(0), ..now }));
    }

    #[test]
    fn a_node_without_flags_is_not_kept() {
        let fixed = Fixed::default();
        let set = Flags { immutable: true, append_only: false };
        fixed.set(NodeId(7), Flags::default());
        assert!(!fixed.any.load(Ordering::Acquire));
        fixed.set(NodeId(7), set);
        assert_eq!((fixed.of(NodeId(7)), fixed.of(NodeId(8))), (set, Flags::default()));
        fixed.set(NodeId(7), Flags::default());
        assert!(fixed.nodes.lock().is_empty());
    }
}
