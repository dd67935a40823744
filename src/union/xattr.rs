//! Extended attributes as users see them: without the marks of the layers.

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{AttrChange, Kind, MODE_MASK, NodeId, S_ISGID, XattrFlags};
use crate::union::Union;
use crate::union::body::{FIRST_GRAFT, Place};
use crate::union::layer::DirRef;
use crate::union::layers::shadow::{ACL_ACCESS, ACL_DEFAULT};
use crate::union::layers::stage::Data;
use crate::union::mark::{self, Mark};
use crate::union::table::Node;

/// The place of attributes: an entry, or the directory itself.
struct Target {
    dir: DirRef,
    name: Option<crate::types::Name>,
    graft: bool,
}

impl Target {
    fn of(dir: DirRef, node: &Node) -> Self {
        Self { dir, name: None, graft: node.key.layer() >= FIRST_GRAFT }
    }

    fn at(place: Place, node: &Node) -> Self {
        Self { dir: place.dir, name: Some(place.name), graft: node.key.layer() >= FIRST_GRAFT }
    }
}

impl Union {
    /// Passes the place from which the attributes of an object are read to `read`.
    fn with_xattrs<R>(&self, id: NodeId, read: impl Fn(&Node, &Target) -> Result<R>) -> Result<R> {
        let node = self.table.node(id)?;
        if node.kind == Kind::Dir {
            let dir = node.dir()?.stack().top().cloned().ok_or(Errno::STALE)?;
            return read(&node, &Target::of(dir, &node));
        }
        self.table.with_object(id, |node, state| {
            read(node, &Target::at(self.table.place(node, state)?, node))
        })
    }

    /// Passes the place in the upper to which the attributes of an object are written to `change`,
    /// with the object locked.
    fn change_xattrs(
        &self,
        id: NodeId,
        change: impl FnOnce(&Node, &Target) -> Result<()>,
    ) -> Result<()> {
        let node = self.table.node(id)?;
        if node.kind == Kind::Dir {
            let dir = self.copy_up_dir(id)?.top().cloned().ok_or(Errno::STALE)?;
            return self.table.with_dir(id, |node, _| change(node, &Target::of(dir, node)));
        }
        self.table.with_file(id, |held| {
            let place = self.copy_up_file(held, Data::Elsewhere)?;
            change(&held.node, &Target::at(place.clone(), &held.node))?;
            self.changed_elsewhere(held, &place)
        })
    }

    /// Returns the value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` if it is absent or the file system does not support attributes.
    pub fn getxattr(&self, id: NodeId, key: &[u8]) -> Result<Vec<u8>> {
        let value = self.with_xattrs(id, |_, target| match stored_key(target, key) {
            Some(stored) => target.dir.xattr(target.name.as_deref(), &stored),
            None => Ok(None),
        })?;
        value.ok_or_else(|| Errno::NODATA.into())
    }

    /// Returns the names of all attributes, each ended by a NUL.
    ///
    /// # Errors
    /// As listxattr(2).
    pub fn listxattr(&self, id: NodeId) -> Result<Vec<u8>> {
        self.with_xattrs(id, |_, target| {
            let mut names = Vec::new();
            for stored in target.dir.xattr_names(target.name.as_deref())? {
                let shown = if target.graft { Some(stored) } else { mark::unescape(&stored) };
                if let Some(shown) = shown {
                    names.extend_from_slice(&shown);
                    names.push(0);
                }
            }
            Ok(names)
        })
    }

    /// Sets an attribute. With `acl_kill_sgid` it clears the set-group-ID bit too.
    ///
    /// # Errors
    /// As setxattr(2); `EPERM` for a reserved name.
    pub fn setxattr(
        &self,
        id: NodeId,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
        acl_kill_sgid: bool,
    ) -> Result<()> {
        self.fixed.may_change(id, false)?;
        self.change_xattrs(id, |node, target| {
            let stored = stored_key(target, key).ok_or(Errno::PERM)?;
            let name = target.name.as_deref();
            target.dir.set_xattr(name, &stored, value, flags)?;
            self.acl_changed(node, key)?;
            if acl_kill_sgid && key == ACL_ACCESS {
                let mode = target.dir.stat(name)?.mode & MODE_MASK & !S_ISGID;
                let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
                target.dir.set_attr(name, &change)?;
            }
            Ok(())
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// As removexattr(2); `EPERM` for a reserved name.
    pub fn removexattr(&self, id: NodeId, key: &[u8]) -> Result<()> {
        self.fixed.may_change(id, false)?;
        let has = self.with_xattrs(id, |node, target| {
            let Some(stored) = stored_key(target, key) else { return Ok(None) };
            if key.starts_with(b"user.") && !matches!(node.kind, Kind::File | Kind::Dir) {
                return Ok(None);
            }
            Ok(Some(target.dir.xattr(target.name.as_deref(), &stored)?.is_some()))
        })?;
        if !has.ok_or(Errno::PERM)? {
            return Err(Errno::NODATA.into());
        }
        self.change_xattrs(id, |node, target| {
            let stored = stored_key(target, key).ok_or(Errno::PERM)?;
            target.dir.remove_xattr(target.name.as_deref(), &stored)?;
            self.acl_changed(node, key)
        })
    }

    /// Called before the inode of a copy gets flags itself: removes the mark that kept flags.
    pub(super) fn end_kept_flags(&self, id: NodeId) -> Result<()> {
        if !self.fixed.is_fixed(id) {
            return Ok(());
        }
        self.remove_mark(id, Mark::ProtAttr)
    }

    /// Removes a mark from an object, which is copied up for that.
    fn remove_mark(&self, id: NodeId, mark: Mark) -> Result<()> {
        let key = self.layers.mark_key(mark);
        self.change_xattrs(id, |_, target| {
            let name = target.name.as_deref();
            // An immutable inode without the mark would refuse its removal too.
            match target.dir.xattr(name, &key)? {
                Some(_) => target.dir.remove_xattr(name, &key),
                None => Ok(()),
            }
        })
    }

    fn acl_changed(&self, node: &Node, key: &[u8]) -> Result<()> {
        if key == ACL_DEFAULT {
            node.dir()?.default_acl.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn stored_key(target: &Target, key: &[u8]) -> Option<Vec<u8>> {
    if target.graft {
        return Some(key.to_vec());
    }
    (!mark::is_private(key)).then(|| mark::escape(key))
}
