//! Extended attributes as users see them: without the marks of the layers.

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{AttrChange, Kind, MODE_MASK, NodeId, S_ISGID, XattrFlags};
use crate::union::body::{Body, FIRST_GRAFT, Place};
use crate::union::copyup::Data;
use crate::union::layer::DirRef;
use crate::union::mark;
use crate::union::shadow::{ACL_ACCESS, ACL_DEFAULT};
use crate::union::table::Node;
use crate::union::{Union, dir_of};

/// A place whose attributes are meant: an entry, or the directory itself.
struct Target {
    dir: DirRef,
    name: Option<crate::types::Name>,
    graft: bool,
}

impl Union {
    fn xattr_source(&self, node: &Node) -> Result<Target> {
        let graft = node.key.layer() >= FIRST_GRAFT;
        if let Some(dir) = node.body.as_deref().and_then(Body::dir) {
            let dir = dir.stack().top().cloned().ok_or(Errno::STALE)?;
            return Ok(Target { dir, name: None, graft });
        }
        let place = match node.body.as_deref().and_then(Body::file) {
            Some(file) => self.place(node, Some(&file.state.lock()))?,
            None => self.place(node, None)?,
        };
        Ok(Target { dir: place.dir, name: Some(place.name), graft })
    }

    fn xattr_target(&self, node: &Node) -> Result<Target> {
        let graft = node.key.layer() >= FIRST_GRAFT;
        if node.kind == Kind::Dir {
            let stack = self.raise_dir(node.id)?;
            let dir = stack.top().cloned().ok_or(Errno::STALE)?;
            return Ok(Target { dir, name: None, graft });
        }
        let body = self.file_body(node.id)?;
        let mut state = body.file().ok_or(Errno::IO)?.state.lock();
        let Place { dir, name, .. } = self.raise_file(node, &mut state, Data::Elsewhere)?;
        Ok(Target { dir, name: Some(name), graft })
    }

    /// Value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` where it is absent or the file system has none.
    pub fn getxattr(&self, id: NodeId, key: &[u8]) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        let target = self.xattr_source(&node)?;
        let stored = match stored_key(&target, key) {
            Some(stored) => stored,
            None => return Err(Errno::NODATA.into()),
        };
        let value = target.dir.xattr(target.name.as_deref(), &stored)?;
        value.ok_or_else(|| Errno::NODATA.into())
    }

    /// Names of all attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// As listxattr(2).
    pub fn listxattr(&self, id: NodeId) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        let target = self.xattr_source(&node)?;
        let mut names = Vec::new();
        for stored in target.dir.xattr_names(target.name.as_deref())? {
            let shown = if target.graft { Some(stored) } else { mark::unescape(&stored) };
            if let Some(shown) = shown {
                names.extend_from_slice(&shown);
                names.push(0);
            }
        }
        Ok(names)
    }

    /// Sets an attribute. With `acl_kill_sgid` the set-group-ID bit goes with it.
    ///
    /// # Errors
    /// As setxattr(2); `EPERM` for a name that is ours.
    pub fn setxattr(
        &self,
        id: NodeId,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
        acl_kill_sgid: bool,
    ) -> Result<()> {
        let node = self.node(id)?;
        let target = self.xattr_target(&node)?;
        let stored = stored_key(&target, key).ok_or(Errno::PERM)?;
        let name = target.name.as_deref();
        target.dir.set_xattr(name, &stored, value, flags)?;
        self.acl_changed(&node, key)?;
        if acl_kill_sgid && key == ACL_ACCESS {
            let mode = target.dir.stat(name)?.mode & MODE_MASK & !S_ISGID;
            let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
            target.dir.set_attr(name, &change)?;
        }
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// As removexattr(2); `EPERM` for a name that is ours.
    pub fn removexattr(&self, id: NodeId, key: &[u8]) -> Result<()> {
        let node = self.node(id)?;
        let source = self.xattr_source(&node)?;
        let stored = stored_key(&source, key).ok_or(Errno::PERM)?;
        if key.starts_with(b"user.") && !matches!(node.kind, Kind::File | Kind::Dir) {
            return Err(Errno::PERM.into());
        }
        if source.dir.xattr(source.name.as_deref(), &stored)?.is_none() {
            return Err(Errno::NODATA.into());
        }
        let target = self.xattr_target(&node)?;
        target.dir.remove_xattr(target.name.as_deref(), &stored)?;
        self.acl_changed(&node, key)
    }

    fn acl_changed(&self, node: &Node, key: &[u8]) -> Result<()> {
        if key == ACL_DEFAULT {
            dir_of(node)?.default_acl.store(0, Ordering::Relaxed);
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
