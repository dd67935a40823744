//! Attributes: reading and changing them.

use crate::error::{Errno, Result};
use crate::types::{AttrChange, FsXattr, Kind, NodeId, Stat};
use crate::union::api::Kill;
use crate::union::body::{Life, Place};
use crate::union::layers::stage::Data;
use crate::union::lock::Held;
use crate::union::table::Node;
use crate::union::{Union, fixed};

impl Union {
    /// Returns the attributes of an object.
    ///
    /// # Errors
    /// As stat(2); `ESTALE` for an unknown node.
    pub fn getattr(&self, id: NodeId) -> Result<Stat> {
        let node = self.table.node(id)?;
        Ok(self.layers.show(&node, self.stored_stat(&node)?))
    }

    /// Returns attributes as the layer of an object stores them.
    fn stored_stat(&self, node: &Node) -> Result<Stat> {
        if node.kind == Kind::Dir {
            return node.dir()?.stat();
        }
        if let Some(stat) = self.served_stat(node.id)? {
            return Ok(stat);
        }
        self.table.with_object(node.id, |node, state| self.table.stat_file(node, state))
    }

    /// Changes attributes and returns the new ones. With `kill_priv` a change of size clears set-id
    /// bits and capabilities.
    ///
    /// # Errors
    /// As chmod(2), chown(2), truncate(2), utimensat(2).
    pub fn setattr(&self, id: NodeId, change: &AttrChange, kill_priv: bool) -> Result<Stat> {
        let node = self.table.node(id)?;
        if change.is_empty() {
            return self.getattr(id);
        }
        self.fixed.may_change(id, fixed::is_touch(change))?;
        let mut change = self.layers.stored_change(&node, change)?;
        if self.layers.shows_group(node.key.layer()) && (change.mode, change.gid) != (None, None) {
            change = self.layers.without_group(&self.stored_stat(&node)?, change);
            if change.is_empty() {
                return self.getattr(id);
            }
        }
        if self.served_change(id, &change, kill_priv)? {
            return self.getattr(id);
        }
        if node.kind == Kind::Dir {
            let dir = self.copy_up_dir(id)?.top().cloned().ok_or(Errno::STALE)?;
            if !change.is_empty() {
                node.dir()?.step(|| dir.set_attr(None, &change))?;
            }
            return self.getattr(id);
        }
        self.table.with_file(id, |held| {
            let data = match change.size {
                Some(0) => Data::Dropped,
                Some(_) => Data::Whole,
                None => Data::Elsewhere,
            };
            if held.state.life == Life::Detached && change.size.is_some() {
                // The pages and the size belong to the other node, to which the name leads.
                return Err(Errno::STALE.into());
            }
            let place = self.copy_up_file(held, data)?;
            if kill_priv && change.size.is_some() {
                self.layers.clear_privilege(&place, Kill::Privilege)?;
            }
            self.set_on(&place, &change)?;
            self.changed_elsewhere(held, &place)
        })?;
        self.getattr(id)
    }

    /// Notifies the kernel that another node, which shares the object, changed.
    pub(super) fn changed_elsewhere(&self, held: &Held<'_>, place: &Place) -> Result<()> {
        if held.state.life == Life::Detached
            && let Some(other) = self.table.find_key(self.layers.key(place.layer, &place.stat()?))
        {
            self.handles.changed(other);
        }
        Ok(())
    }

    fn set_on(&self, place: &Place, change: &AttrChange) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        place.dir.set_attr(Some(&place.name), change)
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// As readlink(2).
    pub fn readlink(&self, id: NodeId) -> Result<Vec<u8>> {
        self.table.with_object(id, |node, state| {
            let place = self.table.place(node, state)?;
            place.dir.readlink(&place.name)
        })
    }

    /// Makes a directory durable.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn fsync_dir(&self, id: NodeId, data_only: bool) -> Result<()> {
        let stack = self.table.node(id)?.dir()?.stack();
        match &stack.upper {
            Some(dir) if !self.layers.options().volatile || stack.graft.is_some() => {
                dir.open_self()?.sync(data_only)
            }
            _ => Ok(()),
        }
    }

    /// `FS_IOC_GETFLAGS`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    pub fn flags(&self, id: NodeId) -> Result<u32> {
        let flags = self.with_descriptor(id, false, |file| file.flags())?;
        Ok(self.fixed.shown_flags(id, flags))
    }

    /// `FS_IOC_SETFLAGS`.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_flags(&self, id: NodeId, flags: u32) -> Result<()> {
        self.end_kept_flags(id)?;
        self.with_descriptor(id, true, |file| file.set_flags(flags))?;
        self.fixed.set_shown_flags(id, flags);
        Ok(())
    }

    /// `FS_IOC_FSGETXATTR`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    pub fn fsxattr(&self, id: NodeId) -> Result<FsXattr> {
        let found = self.with_descriptor(id, false, |file| file.fsxattr())?;
        Ok(FsXattr { xflags: self.fixed.shown_xflags(id, found.xflags), ..found })
    }

    /// `FS_IOC_FSSETXATTR`.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_fsxattr(&self, id: NodeId, value: &FsXattr) -> Result<()> {
        self.end_kept_flags(id)?;
        self.with_descriptor(id, true, |file| file.set_fsxattr(value))?;
        self.fixed.set_shown_xflags(id, value.xflags);
        Ok(())
    }
}
