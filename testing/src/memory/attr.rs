//! Attributes and extended attributes of an inode.

use laminafs::error::{Errno, Result};
use laminafs::types::{
    AttrChange, Kind, MODE_MASK, S_ISGID, S_ISUID, S_IXGRP, SetTime, Time, XattrFlags,
};

use super::tree::{Body, Inode, Tree, fail};

/// Longest name of an attribute (`XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;
/// Longest value (`XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;
/// The attribute that carries file capabilities; any change of data or owner drops it.
const CAPABILITY: &[u8] = b"security.capability";

impl Inode {
    /// Drops file capabilities, as every write does, whatever the caller.
    pub(super) fn drop_capability(&mut self) {
        self.xattrs.remove(CAPABILITY);
    }

    fn chown(&mut self, uid: Option<u32>, gid: Option<u32>) {
        self.owner.uid = uid.unwrap_or(self.owner.uid);
        self.owner.gid = gid.unwrap_or(self.owner.gid);
        if self.is_dir() {
            return;
        }
        self.mode &= !S_ISUID;
        if self.mode & S_IXGRP != 0 {
            self.mode &= !S_ISGID;
        }
        self.drop_capability();
    }
}

fn at(time: SetTime, now: Time) -> Time {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}

fn check_key(op: &'static str, inode: &Inode, key: &[u8], rule: bool) -> Result<()> {
    if key.is_empty() || key.len() > XATTR_NAME_MAX {
        return fail(op, Errno::RANGE);
    }
    let plain = matches!(inode.kind(), Kind::File | Kind::Dir);
    if key.starts_with(b"user.") && rule && !plain {
        return fail(op, Errno::PERM);
    }
    let spaces: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
    match spaces.iter().any(|space| key.len() > space.len() && key.starts_with(space)) {
        true => Ok(()),
        false => fail(op, Errno::OPNOTSUPP),
    }
}

impl Tree {
    pub(super) fn set_attr(&mut self, ino: u64, change: &AttrChange) -> Result<()> {
        const OP: &str = "setattr";
        let now = self.now;
        let inode = self.inode_mut(OP, ino)?;
        if let Some(size) = change.size {
            match &mut inode.body {
                Body::File(content) => content.set_len(size)?,
                Body::Dir(_) => return fail("truncate", Errno::ISDIR),
                _ => return fail("truncate", Errno::INVAL),
            }
            inode.drop_capability();
            inode.mtime = now;
        }
        if change.uid.is_some() || change.gid.is_some() {
            inode.chown(change.uid, change.gid);
        }
        if let Some(mode) = change.mode {
            if inode.kind() == Kind::Symlink {
                return fail("fchmodat2", Errno::OPNOTSUPP);
            }
            inode.mode = (inode.mode & !MODE_MASK) | (mode & MODE_MASK);
        }
        inode.atime = change.atime.map_or(inode.atime, |time| at(time, now));
        inode.mtime = change.mtime.map_or(inode.mtime, |time| at(time, now));
        if !change.is_empty() {
            inode.ctime = now;
        }
        Ok(())
    }

    pub(super) fn set_xattr(
        &mut self,
        ino: u64,
        key: &[u8],
        value: &[u8],
        flags: XattrFlags,
        rule: bool,
    ) -> Result<()> {
        const OP: &str = "lsetxattr";
        let now = self.now;
        let inode = self.inode_mut(OP, ino)?;
        check_key(OP, inode, key, rule)?;
        if value.len() > XATTR_SIZE_MAX {
            return fail(OP, Errno::TOOBIG);
        }
        match inode.xattrs.contains_key(key) {
            true if flags.create => return fail(OP, Errno::EXIST),
            false if flags.replace => return fail(OP, Errno::NODATA),
            _ => {}
        }
        inode.xattrs.insert(key.to_vec(), value.to_vec());
        inode.ctime = now;
        Ok(())
    }

    pub(super) fn remove_xattr(&mut self, ino: u64, key: &[u8], rule: bool) -> Result<()> {
        const OP: &str = "lremovexattr";
        let now = self.now;
        let inode = self.inode_mut(OP, ino)?;
        check_key(OP, inode, key, rule)?;
        if inode.xattrs.remove(key).is_none() {
            return fail(OP, Errno::NODATA);
        }
        inode.ctime = now;
        Ok(())
    }
}
