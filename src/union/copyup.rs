//! Copy-up: an object of a lower layer comes into the upper, whole or not at all.
//!
//! The copy grows in the work directory; its data is durable before it is renamed into place, so
//! that after a power cut the path shows the old file or the new one. Attributes come last, since
//! writing clears set-id bits and capabilities. The parents are copied first.
//!
//! A stop between two steps leaves an unreachable copy in the work directory, which the next
//! mount removes.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{
    Access, AttrChange, Kind, MODE_MASK, Name, NodeId, Owner, RenameFlags, S_ISGID, S_ISUID, Seek,
    SetTime, Stat, XattrFlags,
};
use crate::union::api::Kill;
use crate::union::body::{DirBody, FIRST_GRAFT, FileState, Life, Place, Stack, UPPER};
use crate::union::layer::{DirRef, File};
use crate::union::lock::Held;
use crate::union::mark::{self, Mark};
use crate::union::table::{Key, Node};
use crate::union::{Union, dir_of};

/// What is needed of the data of a file in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing: attributes are changed, the data may stay where it is.
    Elsewhere,
    /// The same, but durable before it is seen: the file gets another name.
    Movable,
    /// All of it.
    Whole,
    /// Nothing: it is truncated at once.
    Dropped,
}

/// The most that one copy step moves, so that the daemon can be stopped in between.
const COPY_STEP: u64 = 64 << 20;

/// A finished copy in the work directory.
struct Staged {
    name: Name,
    key: Key,
    stat: Stat,
    data: Option<Place>,
}

impl Union {
    /// Sees to it that a directory has an upper part, and answers what it is made of.
    ///
    /// # Errors
    /// `EROFS`; `ENOENT` for a directory that is removed; of the backing.
    pub(super) fn copy_up_dir(&self, id: NodeId) -> Result<Arc<Stack>> {
        loop {
            let mut missing = Vec::new();
            let mut at = id;
            let ready = loop {
                let node = self.node(at)?;
                if let Some(stack) = self.ready(dir_of(&node)?)? {
                    break stack;
                }
                missing.push(at);
                at = node.parent;
            };
            let copied =
                missing.into_iter().rev().try_fold(Some(ready), |above, id| match above {
                    Some(_) => self.with_dir(id, |node, body| self.copy_up_one_dir(node, body)),
                    None => Ok(None),
                })?;
            // Without one, a directory was moved meanwhile below another that is not there yet.
            if let Some(stack) = copied {
                return Ok(stack);
            }
        }
    }

    // What a directory is made of, if that can be changed as it is.
    fn ready(&self, body: &DirBody) -> Result<Option<Arc<Stack>>> {
        let stack = body.stack();
        if let Some(graft) = stack.graft {
            let read_only = self.graft(graft).is_none_or(|graft| graft.read_only);
            return if read_only { Err(Errno::ROFS.into()) } else { Ok(Some(stack)) };
        }
        self.upper()?;
        if body.removed.get().is_some() {
            return Err(Errno::NOENT.into());
        }
        Ok(stack.upper.is_some().then_some(stack))
    }

    // Copies one directory up; nothing where its parent is not in the upper.
    fn copy_up_one_dir(&self, node: &Node, body: &DirBody) -> Result<Option<Arc<Stack>>> {
        if let Some(stack) = self.ready(body)? {
            return Ok(Some(stack));
        }
        let stack = body.stack();
        let parent = self.node(node.parent)?;
        let Some(dir) = dir_of(&parent)?.stack().upper.clone() else { return Ok(None) };
        let lower = stack.lowers.first().ok_or(Errno::STALE)?;
        let from = Place { layer: lower.layer, dir: Arc::clone(&lower.dir), name: Name::new() };
        let stat = self.stored_stat(lower.layer, lower.dir.stat(None)?)?;
        let staged = self.stage_dir(&from, &stat)?;
        self.table.add_key(node.id, staged.key);
        if let Err(error) = self.publish(&staged.name, &parent, &dir, &node.name) {
            self.table.drop_key(node.id, staged.key);
            self.remove_staged_dir(&staged.name)?;
            return Err(error);
        }
        let own = dir.dir_known(&node.name, &staged.stat);
        body.set_stack(Stack { upper: Some(own), ..(*stack).clone() });
        self.table.rekey(node.id, staged.key);
        self.set_impure(dir_of(&parent)?, &dir)?;
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        Ok(Some(body.stack()))
    }

    fn stage_dir(&self, from: &Place, stat: &Stat) -> Result<Staged> {
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

    /// Moves a finished copy to its name, where nothing of the upper stands, and gives the
    /// directory its times back: to a user nothing changed in it.
    fn publish(&self, staged: &[u8], parent: &Node, dir: &DirRef, entry: &[u8]) -> Result<()> {
        let work = &self.upper()?.work;
        self.step(dir_of(parent)?, || {
            let before = dir.stat(None)?;
            let flags = RenameFlags { noreplace: true, ..RenameFlags::default() };
            match work.rename(staged, dir.as_ref(), entry, flags) {
                // A file system that has no flags of renameat2(2).
                Err(error) if error.is(Errno::INVAL) => {
                    work.rename(staged, dir.as_ref(), entry, RenameFlags::default())?;
                }
                moved => moved?,
            }
            self.published.fetch_add(1, Ordering::AcqRel);
            // It is done, whatever the times are.
            if let Err(error) = dir.set_attr(None, &times(&before)) {
                tracing::warn!(%error, "times of a directory are those of a copy-up");
            }
            Ok(())
        })
    }

    /// Sees to it that a file is in the upper with as much of its data as is needed.
    ///
    /// # Errors
    /// `EROFS`; `ESTALE` for a file that is gone; of the backing.
    pub(super) fn copy_up_file(&self, held: &mut Held<'_>, data: Data) -> Result<Place> {
        if matches!(held.state.life, Life::Gone(_)) {
            return Err(Errno::STALE.into());
        }
        let place = self.place(&held.node, Some(held.state))?;
        if place.layer >= FIRST_GRAFT {
            let read_only = self.graft(place.layer).is_none_or(|graft| graft.read_only);
            return if read_only { Err(Errno::ROFS.into()) } else { Ok(place) };
        }
        self.upper()?;
        if place.layer == UPPER {
            match (data, held.state.data.is_some()) {
                (Data::Whole, true) => self.complete_data(&place, held.state)?,
                (Data::Dropped, true) => self.drop_data(&place, held.state)?,
                _ => {}
            }
            return Ok(place);
        }
        self.copy_up(held, &place, data, true)
    }

    /// Copies a lower file up. Without `named` it appears in the index alone.
    pub(super) fn copy_up(
        &self,
        held: &mut Held<'_>,
        from: &Place,
        data: Data,
        named: bool,
    ) -> Result<Place> {
        let nameless = held.state.life.is_nameless();
        let (parent, dir, entry) = if nameless || !named {
            (None, Arc::clone(&self.upper()?.orphans), self.unique_name())
        } else {
            let stack = self.copy_up_dir(held.node.parent)?;
            let dir = stack.upper.clone().ok_or(Errno::STALE)?;
            (Some(self.node(held.node.parent)?), dir, held.node.name.clone())
        };
        let stat = self.stored_stat(from.layer, from.stat()?)?;
        let index = self.index_for(from, &stat, nameless)?;
        let source = held.state.data.clone().unwrap_or_else(|| from.clone());
        let staged = self.stage_file(&held.node, from, &stat, (&source, data), index.is_some())?;
        if !nameless {
            self.table.add_key(held.node.id, staged.key);
        }
        let place = Place { layer: UPPER, dir, name: entry };
        let moved = self.publish_file(&staged, index.as_ref(), parent.as_ref(), &place);
        if let Err(error) = moved {
            self.table.drop_key(held.node.id, staged.key);
            self.upper()?.work.unlink(&staged.name)?;
            return Err(error);
        }
        if nameless {
            self.table.set_key(held.node.id, staged.key);
            held.state.life = Life::Parked;
        } else {
            self.table.rekey(held.node.id, staged.key);
        }
        if held.node.key.is_split() {
            // Other names keep the number of the lower object.
            let ino = self.compose_ino(staged.key.fs(), staged.key.ino);
            self.table.set_ino(held.node.id, ino);
        }
        held.node = self.node(held.node.id)?;
        held.state.file = None;
        held.state.data = staged.data;
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        if let Some(indexed) = index {
            held.state.indexed = true;
            held.state.nlink_diff = i64::from(stat.nlink) - 1;
            held.state.place = Some(indexed.clone());
            if let Some(parent) = &parent {
                self.name_indexed(held.state, stat.nlink, parent, &place)?;
                self.set_impure(dir_of(parent)?, &place.dir)?;
            }
            return Ok(indexed);
        }
        if let Some(parent) = &parent {
            self.set_impure(dir_of(parent)?, &place.dir)?;
        }
        held.state.place = parent.is_none().then(|| place.clone());
        Ok(place)
    }

    // From this step on every name of a file with several leads to the copy in the index.
    fn publish_file(
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
        self.published.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn index_for(&self, from: &Place, stat: &Stat, nameless: bool) -> Result<Option<Place>> {
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
    fn name_indexed(
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

    fn stage_file(
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

    // Makes the copy in the work directory, with everything but its name. Answers its attributes
    // of when it was empty, and where its data stayed, if it did.
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
        self.counters.copy_up_bytes.fetch_add(size, Ordering::Relaxed);
        match self.options.reflink {
            true => copy_data(source.as_ref(), size, to),
            false => copy_extents(source.as_ref(), size, to),
        }
    }

    /// Brings the data of a file into the upper whose attributes are there already. The mark goes
    /// when the data is durable: until then the path shows the lower data.
    fn complete_data(&self, place: &Place, state: &mut FileState) -> Result<()> {
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

    fn drop_data(&self, place: &Place, state: &mut FileState) -> Result<()> {
        // Empty, the mark means nothing; with a size again it would bring the old data back.
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
        // Without the other mark this one means nothing.
        let removed = place.dir.remove_xattr(entry, &self.mark_key(Mark::Redirect));
        if let Err(error) = tolerate(removed, &[Errno::NODATA]) {
            tracing::warn!(%error, "a redirect without meaning stays");
        }
        Ok(())
    }

    /// Stores the inode number that an object shows with it, where it can be proved later: with the
    /// number that it has in the upper.
    pub(super) fn store_ino(
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

    /// Copies all attributes but marks. What must not be lost fails the copy: ACLs and
    /// everything of `security.`.
    pub(super) fn copy_xattrs(&self, from: &Place, dir: &DirRef, name: &[u8]) -> Result<()> {
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

    // Owner before mode, since a change of owner clears set-id bits. A capability goes with the
    // owner too, so it is written again.
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

    /// Clears what a write by an unprivileged user clears: set-user-ID, set-group-ID of an
    /// executable, capabilities.
    pub(super) fn clear_privilege(&self, place: &Place, kill: Kill) -> Result<()> {
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
        // Asked first: a file that may only grow has none to remove, and refuses to be asked to.
        let key = b"security.capability";
        if place.dir.xattr(entry, key)?.is_none() {
            return Ok(());
        }
        let removed = place.dir.remove_xattr(entry, key);
        tolerate(removed, &[Errno::NODATA, Errno::OPNOTSUPP])
    }
}

/// Copies `size` bytes of data, sharing extents where the file system can, keeping holes.
///
/// # Errors
/// As reading and writing; `EIO` for a source that is shorter.
pub fn copy_data(source: &dyn File, size: u64, to: &dyn File) -> Result<()> {
    if source.clone_to(to).is_ok() {
        return Ok(());
    }
    copy_extents(source, size, to)
}

fn copy_extents(source: &dyn File, size: u64, to: &dyn File) -> Result<()> {
    to.set_len(size)?;
    let mut position = 0;
    while position < size {
        let start = match source.seek(position, Seek::Data) {
            Ok(start) => start,
            Err(error) if error.is(Errno::NXIO) => break,
            Err(error) if error.is(Errno::INVAL) || error.is(Errno::OPNOTSUPP) => position,
            Err(error) => return Err(error),
        };
        let end = source.seek(start, Seek::Hole).unwrap_or(size).clamp(start, size);
        let mut at = start;
        while at < end {
            let moved = source.copy_range(at, to, at, (end - at).min(COPY_STEP))?;
            if moved == 0 {
                return Err(Errno::IO.into());
            }
            at += moved;
        }
        position = end.max(start + 1);
    }
    Ok(())
}

/// The times of an object, to be set again.
pub(super) fn times(stat: &Stat) -> AttrChange {
    AttrChange {
        atime: Some(SetTime::At(stat.atime)),
        mtime: Some(SetTime::At(stat.mtime)),
        ..AttrChange::default()
    }
}

/// Takes exactly the named refusals as success.
pub(super) fn tolerate(result: Result<()>, expected: &[Errno]) -> Result<()> {
    match result {
        Err(error) if expected.contains(&error.errno()) => Ok(()),
        other => other,
    }
}
