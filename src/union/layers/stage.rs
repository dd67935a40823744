//! Copies of lower objects while they grow in the work directory, and their move into place.

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{
    Access, AttrChange, Kind, MODE_MASK, Name, Owner, RenameFlags, S_ISGID, S_ISUID, SetTime, Stat,
    XattrFlags,
};
use crate::union::api::Kill;
use crate::union::body::{FileState, Place, UPPER};
use crate::union::data;
use crate::union::layer::{DirRef, File};
use crate::union::layers::Layers;
use crate::union::mark::{self, Mark};
use crate::union::table::{Key, Node};

/// Which data of a file is needed in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::union) enum Data {
    /// None: attributes are changed, the data may stay in its layer.
    Elsewhere,
    /// As `Elsewhere`, but durable before it is visible: the file gets another name.
    Movable,
    /// All of it.
    Whole,
    /// None: the file is truncated at once.
    Dropped,
}

/// A finished copy in the work directory.
pub(in crate::union) struct Staged {
    /// The name there.
    pub(in crate::union) name: Name,
    /// The key.
    pub(in crate::union) key: Key,
    /// The attributes.
    pub(in crate::union) stat: Stat,
    /// The place of the data, if it stayed in its layer.
    pub(in crate::union) data: Option<Place>,
}

impl Layers {
    pub(in crate::union) fn stage_dir(&self, from: &Place, stat: &Stat) -> Result<Staged> {
        let upper = self.upper()?;
        let name = self.unique_name();
        upper.work.mkdir(&name, 0o700, upper.own)?;
        let made = || -> Result<Stat> {
            self.copy_xattrs(from, &upper.work, &name)?;
            self.write_origin((from, stat), &upper.work, &name)?;
            self.keep_flags(stat, &upper.work, &name)?;
            self.copy_attributes(stat, &upper.work, &name)?;
            upper.work.stat(Some(&name))
        };
        match made() {
            Ok(stat) => Ok(Staged { name, key: self.key(UPPER, &stat), stat, data: None }),
            Err(error) => {
                upper.work.rmdir(&name)?;
                Err(error)
            }
        }
    }

    /// Moves a finished copy to its name, which is free in the upper, and restores the times of the
    /// directory: for a user nothing changed in it.
    pub(in crate::union) fn publish(
        &self,
        staged: &[u8],
        parent: &Node,
        dir: &DirRef,
        entry: &[u8],
    ) -> Result<()> {
        let work = &self.upper()?.work;
        parent.dir()?.step(|| {
            let before = dir.stat(None)?;
            let flags = RenameFlags { noreplace: true, ..RenameFlags::default() };
            match work.rename(staged, dir.as_ref(), entry, flags) {
                // The file system does not support the flags of renameat2(2).
                Err(error) if error.is(Errno::INVAL) => {
                    work.rename(staged, dir.as_ref(), entry, RenameFlags::default())?;
                }
                moved => moved?,
            }
            self.copies.published.fetch_add(1, Ordering::AcqRel);
            // The copy is published, whether or not the times are restored.
            if let Err(error) = dir.set_attr(None, &times(&before)) {
                tracing::warn!(%error, "times of a directory are those of a copy-up");
            }
            Ok(())
        })
    }

    // From this step on every name of a file with several names leads to the copy in the index.
    pub(in crate::union) fn publish_file(
        &self,
        staged: &Staged,
        index: Option<&Place>,
        parent: Option<&Node>,
        place: &Place,
    ) -> Result<()> {
        let work = &self.upper()?.work;
        let to = index.unwrap_or(place);
        if let Some(parent) = parent.filter(|_| index.is_none()) {
            return self.publish(&staged.name, parent, &to.dir, &to.name);
        }
        work.rename(&staged.name, to.dir.as_ref(), &to.name, RenameFlags::default())?;
        self.copies.published.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    pub(in crate::union) fn index_for(
        &self,
        from: &Place,
        stat: &Stat,
        nameless: bool,
    ) -> Result<Option<Place>> {
        let index = self.upper()?.index.as_ref();
        let several = stat.nlink > 1 && self.is_indexed(from.layer, stat);
        let Some(index) = index.filter(|_| several) else {
            return Ok(None);
        };
        if nameless {
            return Ok(None);
        }
        let origin = self.origin(from, stat)?;
        Ok(origin.map(|origin| Place::new(UPPER, index, &mark::index_name(&origin))))
    }

    /// Gives a copy in the index one more name.
    pub(in crate::union) fn name_indexed(
        &self,
        state: &mut FileState,
        nlink: u32,
        parent: &Node,
        name: &Place,
    ) -> Result<()> {
        let work = &self.upper()?.work;
        let Some(indexed) = state.place.clone() else { return Err(Errno::STALE.into()) };
        let temporary = self.unique_name();
        indexed.dir.link(&indexed.name, work.as_ref(), &temporary)?;
        if let Err(error) = self.publish(&temporary, parent, &name.dir, &name.name) {
            work.unlink(&temporary)?;
            return Err(error);
        }
        self.write_nlink_diff(state, i64::from(nlink) - 2)
    }

    pub(in crate::union) fn stage_file(
        &self,
        node: &Node,
        from: &Place,
        stat: &Stat,
        source: (&Place, Data),
        indexed: bool,
    ) -> Result<Staged> {
        let upper = self.upper()?;
        let name = self.unique_name();
        let (made, data) = match self.stage_object(node, from, stat, source, &name) {
            Ok(made) => made,
            Err(error) => {
                match upper.work.unlink(&name) {
                    Err(gone) if gone.is(Errno::NOENT) => {}
                    other => other?,
                }
                return Err(error);
            }
        };
        if indexed && let Err(error) = self.count_links(&upper.work, &name, stat.nlink) {
            upper.work.unlink(&name)?;
            return Err(error);
        }
        Ok(Staged { name, key: self.key(UPPER, &made), stat: made, data })
    }

    // Makes the copy in the work directory, with everything but its name. Returns the attributes
    // that it had while empty, and the place of its data, if that stayed in its layer.
    fn stage_object(
        &self,
        node: &Node,
        from: &Place,
        stat: &Stat,
        source: (&Place, Data),
        name: &[u8],
    ) -> Result<(Stat, Option<Place>)> {
        let (source, data) = source;
        let upper = self.upper()?;
        let mut elsewhere = None;
        match stat.kind() {
            Kind::Symlink => {
                let target = from.dir.readlink(&from.name)?;
                upper.work.symlink(name, &target, upper.own)?;
            }
            Kind::File => {
                let file = upper.work.create(name, 0o600, upper.own)?;
                let below = matches!(data, Data::Elsewhere | Data::Movable);
                if below && self.options.metacopy && stat.size > 0 {
                    file.set_len(stat.size)?;
                    if data == Data::Movable && !self.options.volatile {
                        file.sync(true)?;
                    }
                    elsewhere = Some(source.clone());
                } else if data != Data::Dropped && stat.size > 0 {
                    self.copy_data(source, stat.size, file.as_ref())?;
                    if !self.options.volatile {
                        file.sync(true)?;
                    }
                }
            }
            _ => upper.work.mknod(name, stat.mode & !MODE_MASK | 0o600, stat.rdev, upper.own)?,
        }
        let made = upper.work.stat(Some(name))?;
        self.copy_xattrs(from, &upper.work, name)?;
        let named_so = mark::is_aufs_name(&from.name) || mark::is_aufs_name(&node.name);
        if stat.is_whiteout_device() || (stat.kind() == Kind::File && named_so) {
            self.set_plain(&upper.work, name)?;
        }
        if elsewhere.is_some() {
            let key = self.mark_key(Mark::Metacopy);
            upper.work.set_xattr(Some(name), &key, b"", XattrFlags::default())?;
        }
        self.write_origin((from, stat), &upper.work, name)?;
        self.keep_flags(stat, &upper.work, name)?;
        if !node.key.is_split() && (stat.kind() == Kind::File || self.marks_any_kind()) {
            self.store_ino(&upper.work, Some(name), (made.ino, node.ino))?;
        }
        self.copy_attributes(stat, &upper.work, name)?;
        Ok((made, elsewhere))
    }

    fn copy_data(&self, from: &Place, size: u64, to: &dyn File) -> Result<()> {
        let source = from.dir.open(&from.name, Access::Read)?;
        self.copies.bytes.fetch_add(size, Ordering::Relaxed);
        match self.options.reflink {
            true => data::copy_data(source.as_ref(), size, to),
            false => data::copy_extents(source.as_ref(), size, to),
        }
    }

    /// Copies the data of a file whose attributes are in the upper already. The mark is removed
    /// when the data is durable: until then the path shows the lower data.
    pub(in crate::union) fn complete_data(
        &self,
        place: &Place,
        state: &mut FileState,
    ) -> Result<()> {
        let Some(source) = state.data.clone() else { return Ok(()) };
        let stat = place.stat()?;
        let capability = place.dir.xattr(Some(&place.name), b"security.capability")?;
        let file = place.dir.open(&place.name, Access::Write)?;
        self.copy_data(&source, stat.size, file.as_ref())?;
        if !self.options.volatile {
            file.sync(true)?;
        }
        if let Some(value) = capability {
            let entry = Some(&place.name[..]);
            place.dir.set_xattr(entry, b"security.capability", &value, XattrFlags::default())?;
        }
        place.dir.set_attr(Some(&place.name), &times(&stat))?;
        self.remove_data_marks(place)?;
        state.data = None;
        state.file = None;
        Ok(())
    }

    pub(in crate::union) fn drop_data(&self, place: &Place, state: &mut FileState) -> Result<()> {
        // On an empty file the mark has no effect; if the file grew, it would bring the old data
        // back.
        let before = place.stat()?;
        let file = place.dir.open(&place.name, Access::Write)?;
        file.set_len(0)?;
        if let Err(error) = self.remove_data_marks(place) {
            file.set_len(before.size)?;
            place.dir.set_attr(Some(&place.name), &times(&before))?;
            return Err(error);
        }
        state.data = None;
        state.file = None;
        Ok(())
    }

    fn remove_data_marks(&self, place: &Place) -> Result<()> {
        let entry = Some(&place.name[..]);
        let removed = place.dir.remove_xattr(entry, &self.mark_key(Mark::Metacopy));
        tolerate(removed, &[Errno::NODATA])?;
        // Without the other mark this one has no effect.
        let removed = place.dir.remove_xattr(entry, &self.mark_key(Mark::Redirect));
        if let Err(error) = tolerate(removed, &[Errno::NODATA]) {
            tracing::warn!(%error, "a redirect without meaning stays");
        }
        Ok(())
    }

    /// Stores the inode number that an object shows, if it can be verified later; the number of its
    /// upper inode is stored with it.
    pub(in crate::union) fn store_ino(
        &self,
        dir: &DirRef,
        name: Option<&[u8]>,
        (own, shown): (u64, u64),
    ) -> Result<()> {
        let key = self.mark_key(Mark::Ino);
        let Some(value) = self.proof.number_to_store(shown, own) else { return Ok(()) };
        let stored = dir.set_xattr(name, &key, &value, XattrFlags::default());
        tolerate(stored, &[Errno::OPNOTSUPP, Errno::PERM])
    }

    fn write_origin(&self, (from, stat): (&Place, &Stat), dir: &DirRef, name: &[u8]) -> Result<()> {
        let Some(origin) = self.origin(from, stat)? else { return Ok(()) };
        let key = self.mark_key(Mark::Origin);
        let stored = dir.set_xattr(Some(name), &key, &origin, XattrFlags::default());
        tolerate(stored, &[Errno::OPNOTSUPP, Errno::PERM])
    }

    /// Copies all attributes but marks. The copy fails if an ACL or an attribute of `security.`
    /// cannot be copied.
    pub(in crate::union) fn copy_xattrs(
        &self,
        from: &Place,
        dir: &DirRef,
        name: &[u8],
    ) -> Result<()> {
        let entry = (!from.name.is_empty()).then_some(&from.name[..]);
        for key in from.dir.xattr_names(entry)? {
            if mark::is_mark(&key) {
                continue;
            }
            let Some(value) = from.dir.xattr(entry, &key)? else { continue };
            let copied = dir.set_xattr(Some(name), &key, &value, XattrFlags::default());
            let must = key.starts_with(b"security.") || key.starts_with(b"system.posix_acl_");
            if must {
                copied?;
            } else {
                tolerate(copied, &[Errno::OPNOTSUPP])?;
            }
        }
        Ok(())
    }

    // Owner before mode, since a change of owner clears set-id bits. It clears a capability too, so
    // that is written again.
    fn copy_attributes(&self, stat: &Stat, dir: &DirRef, name: &[u8]) -> Result<()> {
        let entry = Some(name);
        let key = b"security.capability";
        let owned = self.upper()?.own == Owner { uid: stat.uid, gid: stat.gid };
        if !owned {
            let capability = dir.xattr(entry, key)?;
            let owner =
                AttrChange { uid: Some(stat.uid), gid: Some(stat.gid), ..AttrChange::default() };
            dir.set_attr(entry, &owner)?;
            if let Some(value) = capability {
                dir.set_xattr(entry, key, &value, XattrFlags::default())?;
            }
        }
        let mut change = times(stat);
        if stat.kind() != Kind::Symlink {
            change.mode = Some(stat.mode & MODE_MASK);
        }
        dir.set_attr(entry, &change)
    }

    /// Clears the privileges that a write by an unprivileged user clears: set-user-ID, set-group-ID
    /// of an executable, capabilities.
    pub(in crate::union) fn clear_privilege(&self, place: &Place, kill: Kill) -> Result<()> {
        let entry = Some(&place.name[..]);
        let stat = place.stat()?;
        let sgid = match kill {
            Kill::Nothing => return Ok(()),
            Kill::AllIds => S_ISGID,
            Kill::Privilege if stat.mode & crate::types::S_IXGRP != 0 => S_ISGID,
            Kill::Privilege => 0,
        };
        let cleared = stat.mode & !(S_ISUID | sgid) & MODE_MASK;
        if cleared != stat.mode & MODE_MASK {
            let change = AttrChange { mode: Some(cleared), ..AttrChange::default() };
            place.dir.set_attr(entry, &change)?;
        }
        // Read first: an append-only file has none to remove, and refuses the removal.
        let key = b"security.capability";
        if place.dir.xattr(entry, key)?.is_none() {
            return Ok(());
        }
        let removed = place.dir.remove_xattr(entry, key);
        tolerate(removed, &[Errno::NODATA, Errno::OPNOTSUPP])
    }
}

/// The times of an object, to be set again.
pub(in crate::union) fn times(stat: &Stat) -> AttrChange {
    AttrChange {
        atime: Some(SetTime::At(stat.atime)),
        mtime: Some(SetTime::At(stat.mtime)),
        ..AttrChange::default()
    }
}

/// Treats exactly the named errors as success.
pub(in crate::union) fn tolerate(result: Result<()>, expected: &[Errno]) -> Result<()> {
    match result {
        Err(error) if expected.contains(&error.errno()) => Ok(()),
        other => other,
    }
}
