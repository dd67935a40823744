//! A layer as a tar in PAX format: entries sorted by name, a directory before what is in it.
//!
//! Whiteouts and opaque directories are files `.wh.*`, as in OCI.
//! A tar cannot hold sockets, so they are left out, as in other engines.

use std::collections::HashMap;
use std::io::Write;

use ::tar::EntryType;

use super::member::{Attributes, Head, MemberWriter, refuse};
use crate::format::index::{Content, ROOT};
use crate::format::layout::{Extent, Inode};
use crate::store::Layer;
use crate::store::recipe::{copy_content, copy_range};
use crate::transfer::error::Result;
use crate::types::{Kind, NAME_MAX, Time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The deepest directory, as in an import.
const DEPTH_MAX: usize = 1024;

/// Writes a whole layer.
pub(super) fn write(layer: &Layer, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer { layer, to: MemberWriter { out }, links: HashMap::new() };
    let index = layer.index();
    if let Some(root) = index.inode(ROOT) {
        if !root.is_implied() {
            writer.entry(b"./", root, EntryType::Directory)?;
        }
        writer.dir(b"", ROOT, root)?;
    }
    writer.to.end()
}

struct Writer<'a> {
    layer: &'a Layer,
    to: MemberWriter<'a>,
    /// The first name of each object with several names.
    links: HashMap<u32, Vec<u8>>,
}

impl Writer<'_> {
    fn dir(&mut self, path: &[u8], number: u32, inode: &Inode) -> Result<()> {
        if path.iter().filter(|byte| **byte == b'/').count() > DEPTH_MAX {
            return Err(refuse(path, "more than 1024 directories in each other"));
        }
        let index = self.layer.index();
        let below = |name: &[u8]| [path, name].concat();
        if inode.is_opaque() {
            self.mark(&below(OPAQUE))?;
        }
        for dirent in index.entries(number) {
            let name = index.name(dirent);
            let path = below(name);
            if name.starts_with(WHITEOUT) {
                return Err(refuse(&path, "a tar cannot hold it: its name means a whiteout there"));
            }
            let Some(object) = dirent.object() else {
                if name.len() + WHITEOUT.len() > NAME_MAX {
                    return Err(refuse(&path, "a tar cannot hide a name of this length"));
                }
                self.mark(&below(&[WHITEOUT, name].concat()))?;
                continue;
            };
            let damaged = || refuse(&path, "an object that is not there");
            let inode = index.inode(object).ok_or_else(damaged)?;
            if inode.kind() == Kind::Socket {
                let path = String::from_utf8_lossy(&path);
                tracing::warn!(%path, "a tar has no form for a socket: left out");
                continue;
            }
            if let Some(first) = self.links.get(&object).cloned() {
                self.link(&path, inode, &first)?;
                continue;
            }
            if inode.kind() != Kind::Dir && inode.nlink.get() > 1 {
                self.links.insert(object, path.clone());
            }
            self.object(path, object, inode)?;
        }
        Ok(())
    }

    fn object(&mut self, path: Vec<u8>, number: u32, inode: &Inode) -> Result<()> {
        let index = self.layer.index();
        match inode.kind() {
            Kind::Dir => {
                let path = [&path[..], b"/"].concat();
                // An implied directory is left out where its content implies it again.
                let is_told = inode.is_opaque() || inode.b.get() > 0;
                if !(index.has_implied() && inode.is_implied() && is_told) {
                    self.entry(&path, inode, EntryType::Directory)?;
                }
                self.dir(&path, number, inode)
            }
            Kind::File => self.file(&path, inode),
            Kind::Symlink => self.entry(&path, inode, EntryType::Symlink),
            Kind::Char => self.entry(&path, inode, EntryType::Char),
            Kind::Block => self.entry(&path, inode, EntryType::Block),
            Kind::Fifo => self.entry(&path, inode, EntryType::Fifo),
            _ => Err(refuse(&path, "a tar has no form for it")),
        }
    }

    /// Writes an empty file that marks its directory.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        self.to.head(Head::bare(), path, 0)
    }

    fn link(&mut self, path: &[u8], inode: &Inode, to: &[u8]) -> Result<()> {
        let mut head = self.attributes(path, inode, EntryType::Link)?;
        head.link_name(to);
        self.to.head(head, path, 0)
    }

    /// Writes an object without content.
    fn entry(&mut self, path: &[u8], inode: &Inode, kind: EntryType) -> Result<()> {
        let mut head = self.attributes(path, inode, kind)?;
        match kind {
            EntryType::Symlink => head.link_name(self.layer.index().target(inode)),
            EntryType::Char | EntryType::Block => {
                head.device(path, inode.a.get(), inode.b.get())?;
            }
            _ => {}
        }
        self.to.head(head, path, 0)
    }

    fn file(&mut self, path: &[u8], inode: &Inode) -> Result<()> {
        let head = self.attributes(path, inode, EntryType::Regular)?;
        let size = inode.size.get();
        let layer = self.layer;
        if let Content::Extents(extents) = layer.index().content(inode)
            && layer.allocated(inode) < size
        {
            return self.sparse(path, inode, extents, head);
        }
        self.to.head(head, path, size)?;
        copy_content(layer, inode, self.to.out)?;
        self.to.pad(size, &[])
    }

    fn sparse(&mut self, path: &[u8], inode: &Inode, extents: &[Extent], head: Head) -> Result<()> {
        let mut parts: Vec<(u64, u64)> =
            extents.iter().map(|extent| (extent.start.get(), extent.len.get())).collect();
        let data = self.to.sparse(head, path, &mut parts, inode.size.get())?;
        for (start, len) in parts {
            copy_range(self.layer, inode, start..start + len, self.to.out)?;
        }
        self.to.pad(data, &[])
    }

    fn attributes(&self, path: &[u8], inode: &Inode, kind: EntryType) -> Result<Head> {
        let mtime = Time { secs: inode.mtime.get(), nanos: inode.mtime_nanos.get() };
        let (mode, uid, gid) = (inode.mode.get(), inode.uid.get(), inode.gid.get());
        let mut head = Head::new(kind, Attributes { mode, uid, gid, mtime });
        if kind != EntryType::Link {
            for (key, value) in self.layer.index().xattrs(inode) {
                head.xattr(path, key, value)?;
            }
        }
        Ok(head)
    }
}
