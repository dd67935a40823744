//! Whiteouts, which stand in the upper for removed objects, and the staging of new objects that
//! replace one.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{AttrChange, Kind, Name, Owner, RenameFlags, S_ISGID, XattrFlags};
use crate::union::body::{DirBody, Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::layers::Layers;
use crate::union::mark::{self, Mark};
use crate::union::probe::{exists, is_aufs_whiteout};

/// Default ACL of a directory, as an extended attribute.
pub(in crate::union) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// Access ACL of an object, as an extended attribute.
pub(in crate::union) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// A whiteout: a character device 0:0.
const WHITEOUT_MODE: u32 = Kind::Char.mode_bits();

impl Layers {
    /// Whether an inode of a layer is the shared whiteout: our whiteouts are links to it. Only the
    /// upper has one; an inode of a lower layer may have the same number.
    pub(in crate::union) fn is_shared_whiteout(&self, layer: u16, ino: u64) -> bool {
        let shared = self.upper.as_ref().map(|upper| &upper.whiteout_ino);
        layer == UPPER && shared.is_some_and(|own| own.load(Ordering::Relaxed) == ino)
    }

    /// Whether a directory may hold xattr whiteouts: only a directory marked `opaque=x` does
    /// (`ovl_xattr_get_first_x`).
    pub(in crate::union) fn may_hold_xattr_whiteouts(&self, dir: &DirRef) -> Result<bool> {
        for key in mark::keys(Mark::Opaque) {
            if dir.xattr(None, &key)?.as_deref() == Some(b"x") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a whiteout in the work directory and returns its name there.
    pub(in crate::union) fn stage_whiteout(&self) -> Result<Name> {
        let upper = self.upper()?;
        let entry = self.unique_name();
        let shared: &[u8] = b"whiteout";
        let mut made = upper.whiteout.lock();
        if made.is_none() {
            upper.work.mknod(shared, WHITEOUT_MODE, 0, upper.own)?;
            let ino = upper.work.stat(Some(shared))?.ino;
            upper.whiteout_ino.store(ino, Ordering::Relaxed);
            *made = Some(ino);
        }
        match upper.work.link(shared, upper.work.as_ref(), &entry) {
            Ok(()) => Ok(entry),
            Err(error) if error.is(Errno::MLINK) => {
                // The link limit is reached: the next whiteout starts a new inode.
                upper.work.unlink(shared)?;
                upper.work.mknod(shared, WHITEOUT_MODE, 0, upper.own)?;
                let ino = upper.work.stat(Some(shared))?.ino;
                upper.whiteout_ino.store(ino, Ordering::Relaxed);
                *made = Some(ino);
                upper.work.link(shared, upper.work.as_ref(), &entry)?;
                Ok(entry)
            }
            Err(error) => Err(error),
        }
    }

    /// Hides the lower entry `entry`, and replaces the entry of the upper directory under that name
    /// (nothing, or not a directory).
    pub(in crate::union) fn whiteout(&self, dir: &DirRef, entry: &[u8]) -> Result<()> {
        if self.writes_aufs_whiteouts() {
            if self.needs_xattr_whiteout(dir, entry)? {
                return self.xattr_whiteout(dir, entry);
            }
            self.aufs_whiteout(dir, entry)?;
            return match dir.unlink(entry) {
                Err(error) if error.is(Errno::NOENT) => Ok(()),
                other => other,
            };
        }
        let work = &self.upper()?.work;
        let staged = self.stage_whiteout()?;
        let moved = work.rename(&staged, dir.as_ref(), entry, RenameFlags::default());
        if moved.is_err() {
            work.unlink(&staged)?;
        }
        moved
    }

    /// Whether the AUFS form cannot express that `entry` is removed: the name of the whiteout would
    /// be too long, or a user has an object of that name.
    pub(in crate::union) fn needs_xattr_whiteout(
        &self,
        dir: &DirRef,
        entry: &[u8],
    ) -> Result<bool> {
        if is_too_long(entry) {
            return Ok(true);
        }
        let whiteout = mark::aufs_whiteout(entry);
        Ok(exists(dir, &whiteout)? && !is_aufs_whiteout(dir, &whiteout)?)
    }

    /// Refuses a name that means a whiteout: if whiteouts are files, or if an engine made such a
    /// whiteout here.
    pub(in crate::union) fn refuse_aufs_name(&self, dir: &DirRef, entry: &[u8]) -> Result<()> {
        if mark::is_aufs_name(entry)
            && (self.writes_aufs_whiteouts() || is_aufs_whiteout(dir, entry)?)
        {
            return Err(Errno::PERM.into());
        }
        Ok(())
    }

    /// Whether an AUFS whiteout of the upper hides a name that the upper does not hold.
    pub(in crate::union) fn upper_hides(&self, stack: &Stack, entry: &[u8]) -> Result<bool> {
        if mark::is_aufs_name(entry) {
            return Ok(false);
        }
        match &stack.upper {
            // These come and go during the mount.
            Some(dir) if self.writes_aufs_whiteouts() => {
                Ok(!is_too_long(entry) && is_aufs_whiteout(dir, &mark::aufs_whiteout(entry))?)
            }
            _ => stack.upper_hides(entry),
        }
    }

    // For a name that leaves no room for `.wh.`: an empty file with the kernel's mark, in a
    // directory marked as one that may hold such files (`ovl_xattr_get_first_x`).
    fn xattr_whiteout(&self, dir: &DirRef, entry: &[u8]) -> Result<()> {
        let upper = self.upper()?;
        let staged = self.unique_name();
        upper.work.mknod(&staged, Kind::File.mode_bits() | 0o600, 0, upper.own)?;
        let flags = XattrFlags::default();
        let make = || -> Result<()> {
            let key = self.mark_key(Mark::Whiteout);
            upper.work.set_xattr(Some(&staged), &key, b"y", flags)?;
            let opaque = self.mark_key(Mark::Opaque);
            if dir.xattr(None, &opaque)?.is_none() {
                dir.set_xattr(None, &opaque, b"x", flags)?;
            }
            upper.work.rename(&staged, dir.as_ref(), entry, RenameFlags::default())
        };
        let made = make();
        if made.is_err() {
            upper.work.unlink(&staged)?;
        }
        made
    }

    /// Makes the AUFS whiteout of `entry`.
    pub(in crate::union) fn aufs_whiteout(&self, dir: &DirRef, entry: &[u8]) -> Result<()> {
        let whiteout = mark::aufs_whiteout(entry);
        let own = self.upper()?.own;
        match dir.mknod(&whiteout, Kind::File.mode_bits() | 0o600, 0, own) {
            Err(error) if error.is(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Whether `entry` would show if the upper had nothing under that name.
    pub(in crate::union) fn has_lower_entry(&self, stack: &Stack, entry: &[u8]) -> Result<bool> {
        Ok(stack.has_lower() && self.resolve_lower(&stack.lowers, entry)?.is_some())
    }

    /// Whether a directory has a default ACL; the result is kept.
    pub(in crate::union) fn has_default_acl(&self, body: &DirBody, dir: &DirRef) -> Result<bool> {
        if !self.options.acl {
            return Ok(false);
        }
        let known = body.default_acl.load(Ordering::Relaxed);
        if known != 0 {
            return Ok(known == 2);
        }
        let has = dir.xattr(None, ACL_DEFAULT)?.is_some();
        if body.stack().graft.is_some() {
            return Ok(has);
        }
        body.default_acl.store(if has { 2 } else { 1 }, Ordering::Relaxed);
        Ok(has)
    }

    /// Returns a directory in the work directory in which new objects inherit group and ACL as in
    /// `dir`, and its name if it was made for this purpose and is to be removed.
    pub(in crate::union) fn stage_for(
        &self,
        body: &DirBody,
        dir: &DirRef,
    ) -> Result<(DirRef, Option<Name>)> {
        let upper = self.upper()?;
        let stat = dir.stat(None)?;
        let acl = self.has_default_acl(body, dir)?;
        if stat.mode & S_ISGID == 0 && !acl {
            return Ok((Arc::clone(&upper.work), None));
        }
        let entry = self.unique_name();
        upper.work.mkdir(&entry, 0o700, Owner { uid: upper.own.uid, gid: stat.gid })?;
        let stage = upper.work.dir(&entry);
        let mode = 0o700 | (stat.mode & S_ISGID);
        stage.set_attr(None, &AttrChange { mode: Some(mode), ..AttrChange::default() })?;
        if acl && let Some(value) = dir.xattr(None, ACL_DEFAULT)? {
            stage.set_xattr(None, ACL_DEFAULT, &value, XattrFlags::default())?;
        }
        Ok((stage, Some(entry)))
    }

    /// Removes a directory made by [`Layers::stage_for`].
    pub(in crate::union) fn unstage(&self, staged: Option<Name>) -> Result<()> {
        match staged {
            Some(entry) => self.upper()?.work.rmdir(&entry),
            None => Ok(()),
        }
    }

    /// Removes a directory that was moved to the work directory, with the whiteouts in it.
    pub(in crate::union) fn remove_staged_dir(&self, entry: &[u8]) -> Result<()> {
        let work = &self.upper()?.work;
        super::empty_dir(&work.dir(entry))?;
        work.rmdir(entry)
    }

    /// Marks a directory as opaque: it hides everything below it.
    pub(in crate::union) fn set_opaque(&self, dir: &DirRef, entry: Option<&[u8]>) -> Result<()> {
        let key = self.mark_key(Mark::Opaque);
        match dir.set_xattr(entry, &key, b"y", XattrFlags::default()) {
            Err(error) if error.is(Errno::OPNOTSUPP) => {
                let own = self.upper()?.own;
                let inside = entry.map_or_else(|| Arc::clone(dir), |entry| dir.dir(entry));
                inside.mknod(mark::WH_OPAQUE, Kind::File.mode_bits() | 0o600, 0, own)
            }
            other => other,
        }
    }

    /// Marks a directory as holding entries that have their numbers stored with them.
    pub(in crate::union) fn set_impure(&self, body: &DirBody, dir: &DirRef) -> Result<()> {
        let mut impure = body.impure.lock();
        if *impure {
            return Ok(());
        }
        let key = self.mark_key(Mark::Impure);
        match dir.set_xattr(None, &key, b"y", XattrFlags::default()) {
            Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::PERM) => {}
            other => other?,
        }
        *impure = true;
        Ok(())
    }

    /// Marks an object that looks like a whiteout as a plain one.
    pub(in crate::union) fn set_plain(&self, dir: &DirRef, entry: &[u8]) -> Result<()> {
        let key = self.mark_key(Mark::Plain);
        dir.set_xattr(Some(entry), &key, b"y", XattrFlags::default())
    }

    /// Whether the upper directory holds anything under this name, a whiteout included.
    pub(in crate::union) fn is_occupied(&self, dir: &DirRef, entry: &[u8]) -> Result<bool> {
        exists(dir, entry)
    }
}

/// Whether the name of the AUFS whiteout of a name would be too long.
pub(in crate::union) fn is_too_long(entry: &[u8]) -> bool {
    entry.len() + mark::WH_PREFIX.len() > crate::types::NAME_MAX
}
