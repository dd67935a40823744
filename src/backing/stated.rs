//! Layers that keep owner, mode and kind of their objects in an attribute instead of the inode.
//!
//! Some file systems do not allow a change of owner (NFS, virtiofs), and some stores are read by
//! several users (`force_mask` of containers/storage). They hold images in this form: the inodes
//! belong to the user that unpacked them, and `user.containers.override_stat` holds
//! `UID:GID:MODE[:KIND]`, the mode in octal, the kind as `file`, `dir`, `pipe`, `socket`,
//! `char-MAJOR-MINOR` or `block-MAJOR-MINOR`. The attribute on the root of a layer switches the
//! form on. Symbolic links cannot carry it: they show their inode. Devices, FIFOs and sockets are
//! empty regular files, and attributes of `security.` are kept below
//! `user.containers.override_security.`, except in [`Form::Privileged`].
//!
//! A new object and its attribute are two steps: an object that a stop left between them belongs to
//! the user of the daemon. The inode has the permission bits too, without the set-id bits, and its
//! owner can always read and write it, so that the user of the daemon can.

use std::any::Any;
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::sys::file::{major, makedev, minor};
use crate::types::{
    Access, AttrChange, Handle, Kind, MODE_MASK, Owner, RawEntry, RenameFlags, S_ISGID, S_ISUID,
    S_IXGRP, Stat, StatFs, XattrFlags,
};
use crate::union::layer::{Dir, DirRef, EntrySink, FileRef};

const SECURITY: &[u8] = b"security.";
const OVERRIDE_SECURITY: &[u8] = b"user.containers.override_security.";

/// The attribute that carries what the inode does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `security.fuseoverlayfs.override_stat`: out of reach of users, needs CAP_SYS_ADMIN.
    Privileged,
    /// `user.containers.override_stat`.
    Containers,
    /// `user.fuseoverlayfs.override_stat`, its older name.
    Old,
}

impl Form {
    const ALL: [Self; 3] = [Self::Privileged, Self::Containers, Self::Old];

    const fn key(self) -> &'static [u8] {
        match self {
            Self::Privileged => b"security.fuseoverlayfs.override_stat",
            Self::Containers => b"user.containers.override_stat",
            Self::Old => b"user.fuseoverlayfs.override_stat",
        }
    }
}

/// Returns the form that a layer has, by the attribute of its root.
///
/// # Errors
/// As lgetxattr(2).
pub fn form_of(root: &DirRef) -> Result<Option<Form>> {
    for form in Form::ALL {
        if root.xattr(None, form.key())?.is_some() {
            return Ok(Some(form));
        }
    }
    Ok(None)
}

/// Marks a layer as one of this form.
///
/// # Errors
/// As lsetxattr(2).
pub fn switch_on(root: &DirRef, form: Form) -> Result<()> {
    let stat = root.stat(None)?;
    let value = Stated::of(&stat).to_bytes();
    root.set_xattr(None, form.key(), &value, XattrFlags::default())
}

/// Shows a directory, and all that is reached through it, with the values of its attributes. New
/// inodes belong to `own`.
#[must_use]
pub fn wrap(inner: DirRef, form: Form, own: Owner) -> DirRef {
    Arc::new(StatedDir { inner, form, own })
}

/// The value of the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stated {
    uid: u32,
    gid: u32,
    mode: u32,
    kind: Kind,
    rdev: u64,
}

impl Stated {
    const fn new(kind: Kind, mode: u32, rdev: u64, owner: Owner) -> Self {
        Self { uid: owner.uid, gid: owner.gid, mode: mode & MODE_MASK, kind, rdev }
    }

    const fn of(stat: &Stat) -> Self {
        let Stat { uid, gid, mode, rdev, .. } = *stat;
        Self { uid, gid, mode: mode & MODE_MASK, kind: stat.kind(), rdev }
    }

    /// Parses a value; `kind` is that of the inode, for a value that names none.
    fn parse(value: &[u8], kind: Kind) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.trim_end_matches('\0').splitn(4, ':');
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()? & MODE_MASK;
        let (kind, rdev) = match fields.next() {
            Some(word) => kind_of(word)?,
            None => (kind, 0),
        };
        // 0:0 is the whiteout and needs no attribute; a directory is not a device.
        let false_device = kind == Kind::Char && rdev == 0;
        (!false_device).then_some(Self { uid, gid, mode, kind, rdev })
    }

    fn to_bytes(self) -> Vec<u8> {
        let Self { uid, gid, mode, rdev, .. } = self;
        let kind = match self.kind {
            Kind::Dir => "dir".to_owned(),
            Kind::Fifo => "pipe".to_owned(),
            Kind::Socket => "socket".to_owned(),
            Kind::Symlink => "symlink".to_owned(),
            Kind::Char => format!("char-{}-{}", major(rdev), minor(rdev)),
            Kind::Block => format!("block-{}-{}", major(rdev), minor(rdev)),
            Kind::File | Kind::Unknown => "file".to_owned(),
        };
        format!("{uid}:{gid}:0{mode:o}:{kind}").into_bytes()
    }

    fn apply(self, raw: Stat) -> Stat {
        let mode = self.kind.mode_bits() | self.mode;
        let size = if matches!(self.kind, Kind::File | Kind::Dir) { raw.size } else { 0 };
        Stat { uid: self.uid, gid: self.gid, mode, rdev: self.rdev, size, ..raw }
    }

    /// chown(2) and chmod(2) in that order.
    fn change(&mut self, change: &AttrChange) {
        if (change.uid.is_some() || change.gid.is_some()) && self.kind != Kind::Dir {
            self.mode &= !S_ISUID;
            if self.mode & S_IXGRP != 0 {
                self.mode &= !S_ISGID;
            }
        }
        self.uid = change.uid.unwrap_or(self.uid);
        self.gid = change.gid.unwrap_or(self.gid);
        self.mode = change.mode.map_or(self.mode, |mode| mode & MODE_MASK);
    }
}

fn kind_of(word: &str) -> Option<(Kind, u64)> {
    let mut parts = word.split('-');
    let kind = match parts.next()? {
        "file" => Kind::File,
        "dir" => Kind::Dir,
        "symlink" => Kind::Symlink,
        "pipe" => Kind::Fifo,
        "socket" => Kind::Socket,
        "char" => Kind::Char,
        "block" => Kind::Block,
        _ => return None,
    };
    if !matches!(kind, Kind::Char | Kind::Block) {
        return Some((kind, 0));
    }
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((kind, makedev(major, minor)))
}

/// The permission bits of the inode itself.
const fn inode_mode(kind: Kind, mode: u32) -> u32 {
    match kind {
        Kind::Dir => mode & 0o777 | 0o700,
        Kind::File => mode & 0o777 | 0o600,
        _ => 0o600,
    }
}

struct StatedDir {
    inner: DirRef,
    form: Form,
    own: Owner,
}

impl StatedDir {
    // Returns the stated values, if the kind is possible: never a directory for a file or back.
    fn stated(&self, name: Option<&[u8]>, raw: &Stat) -> Result<Option<Stated>> {
        if !matches!(raw.kind(), Kind::File | Kind::Dir) {
            return Ok(None);
        }
        let Some(value) = self.inner.xattr(name, self.form.key())? else { return Ok(None) };
        match Stated::parse(&value, raw.kind()) {
            Some(stated) if (stated.kind == Kind::Dir) == (raw.kind() == Kind::Dir) => {
                Ok(Some(stated))
            }
            _ => {
                let what = format!(
                    "{}: {:?} is not an owner, a mode and a kind",
                    String::from_utf8_lossy(name.unwrap_or(b".")),
                    String::from_utf8_lossy(&value),
                );
                Err(Error::Corrupt { what })
            }
        }
    }

    fn state(&self, name: Option<&[u8]>, stated: Stated) -> Result<()> {
        self.inner.set_xattr(name, self.form.key(), &stated.to_bytes(), XattrFlags::default())
    }

    // A new object is `stated`, except for the bits and group that a set-group-ID directory passes
    // on.
    fn state_new(&self, name: &[u8], mut stated: Stated) -> Result<()> {
        let parent = self.stat(None)?;
        if parent.mode & S_ISGID != 0 {
            stated.gid = parent.gid;
            if stated.kind == Kind::Dir {
                stated.mode |= S_ISGID;
            }
        }
        let done = self.state(Some(name), stated);
        if done.is_err() {
            match stated.kind {
                Kind::Dir => self.inner.rmdir(name)?,
                _ => self.inner.unlink(name)?,
            }
        }
        done
    }

    const fn hides_security(&self) -> bool {
        !matches!(self.form, Form::Privileged)
    }

    // Returns the key under which an attribute is stored.
    fn stored(&self, key: &[u8]) -> Option<Vec<u8>> {
        let rest = key.strip_prefix(SECURITY).filter(|_| self.hides_security())?;
        Some([OVERRIDE_SECURITY, rest].concat())
    }
}

impl Dir for StatedDir {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn stat(&self, name: Option<&[u8]>) -> Result<Stat> {
        let raw = self.inner.stat(name)?;
        Ok(self.stated(name, &raw)?.map_or(raw, |stated| stated.apply(raw)))
    }

    fn stat_new(&self, name: &[u8], _file: &FileRef) -> Result<Stat> {
        self.stat(Some(name))
    }

    fn dir(&self, name: &[u8]) -> DirRef {
        wrap(self.inner.dir(name), self.form, self.own)
    }

    fn list(&self, from: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        self.list_about(from, u64::MAX, sink)
    }

    fn list_about(&self, from: u64, count: u64, sink: &mut EntrySink<'_>) -> Result<()> {
        if !self.hides_security() {
            return self.inner.list_about(from, count, sink);
        }
        self.inner.list_about(from, count, &mut |entry| {
            // A regular file may stand for a device: its attribute decides.
            let kind = match entry.kind {
                Kind::File => self.stat(Some(entry.name)).map_or(Kind::Unknown, |stat| stat.kind()),
                kind => kind,
            };
            sink(RawEntry { kind, ..entry })
        })
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.readlink(name)
    }

    fn open(&self, name: &[u8], access: Access) -> Result<FileRef> {
        self.inner.open(name, access)
    }

    fn open_self(&self) -> Result<FileRef> {
        self.inner.open_self()
    }

    fn xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(stored) = self.stored(key)
            && let Some(value) = self.inner.xattr(name, &stored)?
        {
            return Ok(Some(value));
        }
        self.inner.xattr(name, key)
    }

    fn xattr_names(&self, name: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        let mut names = self.inner.xattr_names(name)?;
        names.retain(|stored| stored != self.form.key());
        for stored in &mut names {
            if let Some(rest) = stored.strip_prefix(OVERRIDE_SECURITY) {
                *stored = [SECURITY, rest].concat();
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn statfs(&self) -> Result<StatFs> {
        self.inner.statfs()
    }

    fn count_access(&self, always: bool) -> Result<()> {
        self.inner.count_access(always)
    }

    fn handle(&self, name: Option<&[u8]>) -> Result<Option<Handle>> {
        self.inner.handle(name)
    }

    fn mkdir(&self, name: &[u8], mode: u32, owner: Owner) -> Result<()> {
        self.inner.mkdir(name, inode_mode(Kind::Dir, mode), self.own)?;
        self.state_new(name, Stated::new(Kind::Dir, mode, 0, owner))
    }

    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<()> {
        let kind = Kind::from_mode(mode);
        let whiteout = kind == Kind::Char && rdev == 0;
        if whiteout || (kind != Kind::File && !self.hides_security()) {
            return self.inner.mknod(name, mode, rdev, owner);
        }
        let inode = Kind::File.mode_bits() | inode_mode(kind, mode);
        self.inner.mknod(name, inode, 0, self.own)?;
        self.state_new(name, Stated::new(kind, mode, rdev, owner))
    }

    fn symlink(&self, name: &[u8], target: &[u8], _owner: Owner) -> Result<()> {
        self.inner.symlink(name, target, self.own)
    }

    fn create(&self, name: &[u8], mode: u32, owner: Owner) -> Result<FileRef> {
        let file = self.inner.create(name, inode_mode(Kind::File, mode), self.own)?;
        self.state_new(name, Stated::new(Kind::File, mode, 0, owner))?;
        Ok(file)
    }

    fn link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<()> {
        self.inner.link(name, to, to_name)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.inner.unlink(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.inner.rmdir(name)
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.inner.rename(name, to, to_name, flags)
    }

    fn pin(&self, name: &[u8]) -> Result<DirRef> {
        Ok(wrap(self.inner.pin(name)?, self.form, self.own))
    }

    fn moving(&self, begins: bool) {
        self.inner.moving(begins);
    }

    fn dir_known(&self, name: &[u8], stat: &Stat) -> DirRef {
        wrap(self.inner.dir_known(name, stat), self.form, self.own)
    }

    fn relocate(&self, parent: &DirRef, name: &[u8]) {
        self.inner.relocate(parent, name);
    }

    fn set_attr(&self, name: Option<&[u8]>, change: &AttrChange) -> Result<()> {
        if change.uid.is_none() && change.gid.is_none() && change.mode.is_none() {
            return self.inner.set_attr(name, change);
        }
        let raw = self.inner.stat(name)?;
        if !matches!(raw.kind(), Kind::File | Kind::Dir) {
            return match self.inner.set_attr(name, change) {
                // The owner of a link has no effect.
                Err(error) if raw.kind() == Kind::Symlink && error.is(Errno::PERM) => {
                    self.inner.set_attr(name, &AttrChange { uid: None, gid: None, ..*change })
                }
                done => done,
            };
        }
        let mut stated = self.stated(name, &raw)?.unwrap_or_else(|| Stated::of(&raw));
        stated.change(change);
        let mode = change.mode.map(|mode| inode_mode(stated.kind, mode));
        self.state(name, stated)?;
        self.inner.set_attr(name, &AttrChange { uid: None, gid: None, mode, ..*change })
    }

    fn set_xattr(
        &self,
        name: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let stored = self.stored(key);
        self.inner.set_xattr(name, stored.as_deref().unwrap_or(key), value, flags)
    }

    fn remove_xattr(&self, name: Option<&[u8]>, key: &[u8]) -> Result<()> {
        if let Some(stored) = self.stored(key)
            && self.inner.xattr(name, &stored)?.is_some()
        {
            return self.inner.remove_xattr(name, &stored);
        }
        self.inner.remove_xattr(name, key)
    }

    fn sync_fs(&self) -> Result<()> {
        self.inner.sync_fs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_age_are_read() {
        let parsed = |text: &str| Stated::parse(text.as_bytes(), Kind::File);
        let file = Stated { uid: 0, gid: 5, mode: 0o4755, kind: Kind::File, rdev: 0 };
        assert_eq!(parsed("0:5:4755"), Some(file));
        assert_eq!(parsed("0:5:0104755"), Some(file));
        assert_eq!(parsed("0:5:04755:file\0"), Some(file));
        let device = Stated { kind: Kind::Char, rdev: makedev(5, 1), ..file };
        assert_eq!(parsed("0:5:04755:char-5-1"), Some(device));
        assert_eq!(Stated::parse(&device.to_bytes(), Kind::File), Some(device));
        for bad in ["", "0:0", "0:x:644", "0:0:99", "0:0:644:char", "0:0:644:char-0-0", "-1:0:644"]
        {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
