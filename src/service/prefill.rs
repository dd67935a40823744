//! Filling of an empty volume with the content of the image at its place, as Docker does: content,
//! owners, modes, times, links and extended attributes.

use std::collections::HashMap;

use crate::error::{Errno, Result};
use crate::types::{AttrChange, Kind, MODE_MASK, Name, NodeId, Owner, SetTime, Stat, XattrFlags};
use crate::union::{Detail, DirRef, DirSink, Entry, Union, copy_data};

/// The deepest directory that is copied: the maximum for a path of 4,096 bytes.
const DEPTH_MAX: usize = 2048;

struct Names {
    names: Vec<Name>,
    last: u64,
}

impl DirSink for Names {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn has_room(&self, _: usize) -> bool {
        self.names.len() % 1024 != 1023
    }

    fn push(&mut self, name: &[u8], _: u64, _: Kind, next: u64, _: Option<&Entry>) {
        self.last = next;
        if name != b"." && name != b".." {
            self.names.push(Name::from_slice(name));
        }
    }
}

pub(super) fn names(union: &Union, dir: NodeId) -> Result<Vec<Name>> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let mut batch = Names { names: Vec::new(), last: from };
        union.readdir(dir, from, Detail::Names, &mut batch)?;
        if batch.last == from {
            return Ok(all);
        }
        from = batch.last;
        all.append(&mut batch.names);
    }
}

/// Copies the content and the attributes of a directory of the mount to an empty directory of the
/// host.
pub(super) fn fill(union: &Union, from: NodeId, to: &DirRef) -> Result<()> {
    let mut copy = Copy { union, links: HashMap::new() };
    copy.below(from, to, 0)?;
    let stat = union.getattr(from)?;
    copy.attributes(from, to, None, &stat)
}

struct Copy<'a> {
    union: &'a Union,
    links: HashMap<NodeId, (DirRef, Name)>,
}

impl Copy<'_> {
    fn below(&mut self, from: NodeId, to: &DirRef, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in names(self.union, from)? {
            let Some(entry) = self.union.lookup(from, &name)? else { continue };
            let done = self.entry(&entry, to, &name, depth);
            // A node with further names is kept until the end.
            if entry.stat.nlink <= 1 || entry.stat.kind() == Kind::Dir {
                self.union.forget(entry.node, 1);
            }
            done?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, to: &DirRef, name: &Name, depth: usize) -> Result<()> {
        let (node, stat) = (entry.node, &entry.stat);
        let own = Owner { uid: stat.uid, gid: stat.gid };
        match stat.kind() {
            Kind::Dir => {
                to.mkdir(name, 0o700, own)?;
                self.below(node, &to.dir(name), depth + 1)?;
            }
            _ if self.links.contains_key(&node) => {
                if let Some((dir, first)) = self.links.get(&node) {
                    return dir.link(first, to.as_ref(), name);
                }
            }
            Kind::Symlink => to.symlink(name, &self.union.readlink(node)?, own)?,
            Kind::File => {
                let file = to.create(name, 0o600, own)?;
                self.union.read_with(node, |from| copy_data(from, stat.size, file.as_ref()))?;
            }
            _ => to.mknod(name, stat.mode & !MODE_MASK | 0o600, stat.rdev, own)?,
        }
        if stat.kind() != Kind::Dir && stat.nlink > 1 {
            self.links.insert(node, (DirRef::clone(to), name.clone()));
        }
        self.attributes(node, to, Some(name), stat)
    }

    fn attributes(
        &self,
        node: NodeId,
        dir: &DirRef,
        name: Option<&[u8]>,
        stat: &Stat,
    ) -> Result<()> {
        let mut change = AttrChange {
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            atime: Some(SetTime::At(stat.atime)),
            mtime: Some(SetTime::At(stat.mtime)),
            ..AttrChange::default()
        };
        if stat.kind() != Kind::Symlink {
            change.mode = Some(stat.mode & MODE_MASK);
        }
        dir.set_attr(name, &change)?;
        let keys = self.union.listxattr(node)?;
        for key in keys.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let value = self.union.getxattr(node, key)?;
            match dir.set_xattr(name, key, &value, XattrFlags::default()) {
                Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::PERM) => {
                    tracing::warn!(%error, key = %String::from_utf8_lossy(key), "not copied");
                }
                done => done?,
            }
        }
        Ok(())
    }
}
