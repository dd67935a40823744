//! Layers of the store as lower layers: metadata comes from the index, data from the blob.
//!
//! Types of the store's format are shown in the marks of the kernel's overlayfs, which the union
//! reads: a whiteout is a character device 0:0, an opaque directory has `trusted.overlay.opaque`.
//! Nothing can be changed: every such call is `EROFS`.

mod implied;

use std::any::Any;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};

use self::implied::{Sources, Stacked};
use crate::error::{Errno, Error, Result};
use crate::format::index::ROOT;
use crate::format::layout::{Dirent, Inode};
use crate::store::Layer;
use crate::sys;
use crate::sys::file::makedev;
use crate::types::marks::is_reserved;
use crate::types::{
    Access, AttrChange, FsXattr, Handle, Kind, NAME_MAX, Owner, RawEntry, RenameFlags, Seek, Stat,
    StatFs, Time, XattrFlags,
};
use crate::union::layer::{Dir, DirRef, EntrySink, File, FileRef, StatSink};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Bytes of one step of a copy to the upper.
const STEP: u64 = 1 << 20;
/// The device of layer 0, above the device numbers of file systems.
const DEVICES: u64 = 0x4c << 56;

/// The type of our handles, which no file system of the kernel uses.
const HANDLE_KIND: u8 = 0x4c;

const READ_ONLY: Error = Error::Rule(Errno::ROFS);

/// Receives entries and the objects that they name, if they name one.
type ObjectSink<'a> = dyn FnMut(RawEntry<'_>, Option<(u32, &Inode)>) -> bool + 'a;

/// Returns the roots of stacked layers, the lowest first. A directory that a layer only implies
/// shows the attributes of the one below.
#[must_use]
pub fn roots(layers: Vec<Arc<Layer>>) -> Vec<DirRef> {
    let mut below: Vec<Stacked> = Vec::with_capacity(layers.len());
    for layer in layers {
        let sources = Arc::new(implied::sources(&layer, &below));
        below.push(Stacked { layer, sources });
    }
    let root = |Stacked { layer, sources }| -> DirRef {
        Arc::new(BlobDir { layer, sources, ino: Some(ROOT) })
    };
    below.into_iter().map(root).collect()
}

/// A directory of a layer; without a number, a directory that does not exist.
struct BlobDir {
    layer: Arc<Layer>,
    sources: Arc<Sources>,
    ino: Option<u32>,
}

fn stat_of(layer: &Layer, ino: u32, inode: &Inode) -> Stat {
    let time = Time { secs: inode.mtime.get(), nanos: inode.mtime_nanos.get() };
    let device = matches!(inode.kind(), Kind::Char | Kind::Block);
    let size = if inode.kind() == Kind::Dir { 4096 } else { inode.size.get() };
    let data = if inode.kind() == Kind::File { layer.allocated(inode) } else { 0 };
    Stat {
        dev: DEVICES | u64::from(layer.number()),
        ino: u64::from(ino) + 1,
        mode: inode.mode.get(),
        nlink: inode.nlink.get(),
        uid: inode.uid.get(),
        gid: inode.gid.get(),
        rdev: if device { makedev(inode.a.get(), inode.b.get()) } else { 0 },
        size,
        blocks: data.div_ceil(512),
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
        // An object is never younger than its data.
        btime: Some(time),
        ..Stat::default()
    }
}

impl BlobDir {
    fn own(&self) -> Result<(u32, &Inode)> {
        let ino = self.ino.ok_or(Errno::NOENT)?;
        let inode = self.layer.index().inode(ino).ok_or(Errno::IO)?;
        match inode.kind() {
            Kind::Dir => Ok((ino, inode)),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn entry(&self, name: &[u8]) -> Result<&Dirent> {
        let (dir, _) = self.own()?;
        self.layer.index().find(dir, name).ok_or_else(|| Errno::NOENT.into())
    }

    /// Returns an object, or `None` for a whiteout.
    fn object(&self, name: Option<&[u8]>) -> Result<Option<(u32, &Inode)>> {
        let Some(name) = name else { return self.own().map(Some) };
        let Some(ino) = self.entry(name)?.object() else { return Ok(None) };
        let inode = self.layer.index().inode(ino).ok_or(Errno::IO)?;
        Ok(Some((ino, inode)))
    }

    /// Returns the layer and the object that give the attributes of an object: its own, except for
    /// an implied directory.
    fn attributes<'a>(&'a self, ino: u32, inode: &'a Inode) -> (&'a Layer, &'a Inode) {
        let own = (&*self.layer, inode);
        if !inode.is_implied() {
            return own;
        }
        let source = self.sources.get(&ino);
        let found = source.and_then(|(layer, ino)| Some((&**layer, layer.index().inode(*ino)?)));
        found.unwrap_or(own)
    }

    fn stat_of(&self, ino: u32, inode: &Inode) -> Stat {
        let (_, attributes) = self.attributes(ino, inode);
        Stat { nlink: inode.nlink.get(), ..stat_of(&self.layer, ino, attributes) }
    }

    /// Passes the entries behind a position to `sink`, with the objects that they name.
    fn walk(&self, from: u64, sink: &mut ObjectSink<'_>) -> Result<()> {
        let (dir, _) = self.own()?;
        let index = self.layer.index();
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        let inodes = index.inodes();
        for (at, entry) in index.entries(dir).iter().enumerate().skip(first) {
            let object = match entry.object() {
                Some(ino) => Some((ino, inodes.get(ino as usize).ok_or(Errno::IO)?)),
                None => None,
            };
            let (ino, kind) = match object {
                Some((ino, _)) => (u64::from(ino) + 1, Kind::from_dtype(entry.kind)),
                None => (0, Kind::Char),
            };
            if !sink(RawEntry { name: index.name(entry), ino, kind, next: at as u64 + 1 }, object) {
                break;
            }
        }
        Ok(())
    }

    fn whiteout(&self) -> Stat {
        let dev = DEVICES | u64::from(self.layer.number());
        Stat { dev, ino: 0, mode: Kind::Char.mode_bits(), nlink: 1, ..Stat::default() }
    }
}

impl Dir for BlobDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        self.layer.checked(self.object(name).map(|object| match object {
            Some((ino, inode)) => self.stat_of(ino, inode),
            None => self.whiteout(),
        }))
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        // An entry that a torn index does not show is refused at each use.
        let ino = self.entry(name).ok().and_then(Dirent::object);
        let (layer, sources) = (Arc::clone(&self.layer), Arc::clone(&self.sources));
        Arc::new(Self { layer, sources, ino })
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.layer.checked(self.walk(from, &mut |entry, _| sink(entry)))
    }

    fn list_stat(&self, from: u64, sink: &mut StatSink<'_>) -> Result<bool> {
        let walked = self.walk(from, &mut |entry, object| match object {
            Some((ino, inode)) => sink(entry, &self.stat_of(ino, inode)),
            None => sink(entry, &self.whiteout()),
        });
        self.layer.checked(walked.map(|()| true))
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.layer.checked(self.object(Some(name)).and_then(|object| match object {
            Some((_, inode)) if inode.kind() == Kind::Symlink => {
                Ok(self.layer.index().target(inode).to_vec())
            }
            _ => Err(Errno::INVAL.into()),
        }))
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        let object = self.object(Some(name)).map(|found| found.map(|(ino, inode)| (ino, *inode)));
        let (ino, inode) = self.layer.checked(object)?.ok_or(Errno::NXIO)?;
        match (access, inode.kind()) {
            (Access::Write, _) => Err(READ_ONLY),
            // The kernel reads this file by itself.
            (Access::Path, Kind::File) => {
                let served = self.layer.material(&inode);
                Ok(BlobFile::shared(&self.layer, ino, inode, served))
            }
            (Access::Path, _) | (_, Kind::File) => {
                Ok(BlobFile::shared(&self.layer, ino, inode, None))
            }
            (_, Kind::Dir) => Err(Errno::ISDIR.into()),
            _ => Err(Errno::NXIO.into()),
        }
    }

    fn open_self(&self) -> Result<FileRef> {
        let (ino, inode) = self.layer.checked(self.own())?;
        let inode = Inode { nlink: inode.nlink, ..*self.attributes(ino, inode).1 };
        self.layer.checked(Ok(()))?;
        Ok(BlobFile::shared(&self.layer, ino, inode, None))
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((ino, inode)) = self.layer.checked(self.object(name))? else { return Ok(None) };
        if key == OPAQUE {
            return self.layer.checked(Ok(inode.is_opaque().then(|| b"y".to_vec())));
        }
        // The index marks objects by types; an attribute that looks like a mark is not one.
        if is_reserved(key) {
            return Ok(None);
        }
        let (layer, inode) = self.attributes(ino, inode);
        let found = layer.index().xattrs(inode).find(|(found, _)| *found == key);
        let found = found.map(|(_, value)| value.to_vec());
        layer.checked(self.layer.checked(Ok(found)))
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        let object = self.layer.checked(self.object(name))?;
        let Some((ino, inode)) = object else { return Ok(Vec::new()) };
        let opaque = inode.is_opaque().then(|| OPAQUE.to_vec());
        let (layer, inode) = self.attributes(ino, inode);
        let names = layer.index().xattrs(inode).map(|(found, _)| found.to_vec());
        let names = names.filter(|name| !is_reserved(name));
        let names = opaque.into_iter().chain(names).collect();
        layer.checked(self.layer.checked(Ok(names)))
    }

    fn statfs(&self) -> Result<StatFs> {
        let index = self.layer.index();
        Ok(StatFs {
            blocks: index.blob_len().div_ceil(4096),
            files: index.inodes().len() as u64,
            bsize: 4096,
            frsize: 4096,
            namelen: NAME_MAX as u32,
            ..StatFs::default()
        })
    }

    // A permanent handle of an object of this layer: hard links are indexed by it.
    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        let Some((ino, _)) = self.layer.checked(self.object(name))? else { return Ok(None) };
        let digest = blake3::Hash::from_hex(self.layer.id().as_str()).map_err(|_| Errno::IO)?;
        let uuid = *digest.as_bytes().first_chunk().ok_or(Errno::IO)?;
        Ok(Some(Handle { kind: HANDLE_KIND, bytes: ino.to_le_bytes().to_vec(), uuid }))
    }

    fn mkdir(&self, _: &[u8], _: u32, _: Owner) -> Result<()> {
        Err(READ_ONLY)
    }

    fn mknod(&self, _: &[u8], _: u32, _: u64, _: Owner) -> Result<()> {
        Err(READ_ONLY)
    }

    fn symlink(&self, _: &[u8], _: &[u8], _: Owner) -> Result<()> {
        Err(READ_ONLY)
    }

    fn create(&self, _: &[u8], _: u32, _: Owner) -> Result<FileRef> {
        Err(READ_ONLY)
    }

    fn link(&self, _: &[u8], _: &dyn Dir, _: &[u8]) -> Result<()> {
        Err(READ_ONLY)
    }

    fn unlink(&self, _: &[u8]) -> Result<()> {
        Err(READ_ONLY)
    }

    fn rmdir(&self, _: &[u8]) -> Result<()> {
        Err(READ_ONLY)
    }

    fn rename(&self, _: &[u8], _: &dyn Dir, _: &[u8], _: RenameFlags) -> Result<()> {
        Err(READ_ONLY)
    }

    fn pin(&self, _name: &[u8]) -> Result<DirRef> {
        // No object of a layer ever loses its name.
        Err(Errno::OPNOTSUPP.into())
    }

    fn relocate(&self, _: &DirRef, _: &[u8]) {}

    fn set_attr(&self, _: Option<&[u8]>, _: &AttrChange) -> Result<()> {
        Err(READ_ONLY)
    }

    fn set_xattr(&self, _: Option<&[u8]>, _: &[u8], _: &[u8], _: XattrFlags) -> Result<()> {
        Err(READ_ONLY)
    }

    fn remove_xattr(&self, _: Option<&[u8]>, _: &[u8]) -> Result<()> {
        Err(READ_ONLY)
    }

    fn sync_fs(&self) -> Result<()> {
        Ok(())
    }
}

/// An open file of a layer.
struct BlobFile {
    layer: Arc<Layer>,
    ino: u32,
    inode: Inode,
    served: Option<fs::File>,
    at_hand: OnceLock<Option<fs::File>>,
}

impl BlobFile {
    fn shared(layer: &Arc<Layer>, ino: u32, inode: Inode, served: Option<fs::File>) -> FileRef {
        let at_hand = OnceLock::new();
        Arc::new(Self { layer: Arc::clone(layer), ino, inode, served, at_hand })
    }

    /// A file of the host with the same content, if one exists already: for copies.
    fn at_hand(&self) -> Option<BorrowedFd<'_>> {
        let find = || self.layer.material_at_hand(&self.inode);
        self.at_hand.get_or_init(find).as_ref().map(fs::File::as_fd)
    }
}

impl File for BlobFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.served.as_ref().map(fs::File::as_fd)
    }

    fn not_registered(&self) {
        self.layer.stop_materials();
    }

    fn stat(&self) -> Result<Stat> {
        self.layer.checked(Ok(stat_of(&self.layer, self.ino, &self.inode)))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.layer.read(&self.inode, buf, offset)
    }

    fn read_shared(&self, len: usize, offset: u64, take: &mut dyn FnMut(&[&[u8]])) -> Result<bool> {
        self.layer.read_shared(&self.inode, len, offset, take)
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<usize> {
        Err(READ_ONLY)
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Err(READ_ONLY)
    }

    fn allocate(&self, _: u32, _: u64, _: u64) -> Result<()> {
        Err(READ_ONLY)
    }

    fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.layer.checked(self.layer.seek(&self.inode, offset, whence))
    }

    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        if let (Some(fd), Some(to)) = (self.at_hand(), to.fd()) {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            match sys::file::copy_file_range((fd, from), (to, to_offset), len) {
                Ok(copied) => return Ok(copied as u64),
                // The files are on different file systems, or theirs cannot copy ranges.
                Err(error) => tracing::trace!(%error, "copied by reading"),
            }
        }
        let mut data = vec![0; usize::try_from(len.min(STEP)).unwrap_or(0)];
        let got = self.read_at(&mut data, from)?;
        let data = data.get(..got).unwrap_or_default();
        if data.is_empty() {
            return Ok(0);
        }
        to.write_at(data, to_offset).map(|written| written as u64)
    }

    fn clone_to(&self, to: &dyn File) -> Result<()> {
        match (self.at_hand(), to.fd()) {
            (Some(fd), Some(to)) => sys::ioctl::ficlone(to, fd),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    fn flags(&self) -> Result<u32> {
        Ok(0)
    }

    fn set_flags(&self, _: u32) -> Result<()> {
        Err(READ_ONLY)
    }

    fn fsxattr(&self) -> Result<FsXattr> {
        Ok(FsXattr::default())
    }

    fn set_fsxattr(&self, _: &FsXattr) -> Result<()> {
        Err(READ_ONLY)
    }
}
