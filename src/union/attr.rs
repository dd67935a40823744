//! Attributes: reading and changing them.

use crate::error::{Errno, Result};
use crate::types::{AttrChange, FsXattr, Kind, NodeId, Stat};
use crate::union::api::Kill;
use crate::union::body::{Body, FIRST_GRAFT, Life, Place};
use crate::union::copyup::Data;
use crate::union::table::Node;
use crate::union::{Union, dir_of};

impl Union {
    /// Attributes of an object.
    ///
    /// # Errors
    /// As stat(2); `ESTALE` for a node that is unknown.
    pub fn getattr(&self, id: NodeId) -> Result<Stat> {
        let node = self.node(id)?;
        let stat = self.stat_node(&node)?;
        Ok(self.show(&node, stat))
    }

    /// Changes attributes; answers the new ones. With `kill_priv` a change of size clears set-id
    /// bits and capabilities.
    ///
    /// # Errors
    /// As chmod(2), chown(2), truncate(2), utimensat(2).
    pub fn setattr(&self, id: NodeId, change: &AttrChange, kill_priv: bool) -> Result<Stat> {
        let node = self.node(id)?;
        if change.is_empty() {
            return self.getattr(id);
        }
        let change = self.stored_change(&node, change)?;
        if node.kind == Kind::Dir {
            let stack = self.raise_dir(id)?;
            if !change.is_empty() {
                stack.top().ok_or(Errno::STALE)?.set_attr(None, &change)?;
            }
            return self.getattr(id);
        }
        let body = self.file_body(id)?;
        let file = body.file().ok_or(Errno::ISDIR)?;
        {
            let mut state = file.state.lock();
            if let (Life::Gone(_), Some((file, _)), Some(size)) =
                (state.life, &state.file, change.size)
            {
                // An open file of a graft whose name is gone: its size is all that can change.
                file.set_len(size)?;
                drop(state);
                return self.getattr(id);
            }
            let data = match change.size {
                Some(0) => Data::Dropped,
                Some(_) => Data::Whole,
                None => Data::Elsewhere,
            };
            let place = self.raise_file(&node, &mut state, data)?;
            if kill_priv && change.size.is_some() {
                self.clear_privilege(&place, Kill::Privilege)?;
            }
            self.set_on(&place, &change)?;
        }
        self.getattr(id)
    }

    fn set_on(&self, place: &Place, change: &AttrChange) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        place.dir.set_attr(Some(&place.name), change)
    }

    fn stored_change(&self, node: &Node, change: &AttrChange) -> Result<AttrChange> {
        let mut stored = *change;
        if node.key.layer() < FIRST_GRAFT {
            if let Some(uid) = change.uid {
                stored.uid = Some(self.store_uid(uid)?);
            }
            if let Some(gid) = change.gid {
                stored.gid = Some(self.store_gid(gid)?);
            }
        }
        if let Some(mode) = change.mode {
            stored.mode = Some(mode & crate::types::MODE_MASK);
        }
        Ok(stored)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// As readlink(2).
    pub fn readlink(&self, id: NodeId) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        let place = match node.body.as_deref().and_then(Body::file) {
            Some(file) => self.place(&node, Some(&file.state.lock()))?,
            None => self.place(&node, None)?,
        };
        place.dir.readlink(&place.name)
    }

    /// Makes a directory durable.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn fsync_dir(&self, id: NodeId, data_only: bool) -> Result<()> {
        let stack = dir_of(&self.node(id)?)?.stack();
        match &stack.upper {
            Some(dir) if !self.options.volatile => dir.open_self()?.sync(data_only),
            _ => Ok(()),
        }
    }

    /// `FS_IOC_GETFLAGS`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    pub fn flags(&self, id: NodeId) -> Result<u32> {
        self.with_descriptor(id, false, |file| file.flags())
    }

    /// `FS_IOC_SETFLAGS`.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_flags(&self, id: NodeId, flags: u32) -> Result<()> {
        self.with_descriptor(id, true, |file| file.set_flags(flags))
    }

    /// `FS_IOC_FSGETXATTR`.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none.
    pub fn fsxattr(&self, id: NodeId) -> Result<FsXattr> {
        self.with_descriptor(id, false, |file| file.fsxattr())
    }

    /// `FS_IOC_FSSETXATTR`.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_fsxattr(&self, id: NodeId, value: &FsXattr) -> Result<()> {
        self.with_descriptor(id, true, |file| file.set_fsxattr(value))
    }
}
