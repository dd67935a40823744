//! Rename, with all flags, of any object to any directory in the same layer.
//!
//! A directory with parts in lower layers moves in one step: its upper part is renamed, and a
//! redirect on it leads to its lower parts. If redirects cannot be used, the whole tree is copied
//! up first. A directory that must not merge with the layers below its new name is made opaque
//! before it moves. Only one rename of a mount that crosses directories runs at a time, as in the
//! kernel (`s_vfs_rename_mutex`).

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{AttrChange, Kind, MODE_MASK, Name, NodeId, RenameFlags, Stat, XattrFlags};
use crate::union::body::{Place, Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::layers::found::Found;
use crate::union::layers::stage::{Data, times};
use crate::union::lock::{Held, Parents};
use crate::union::lookup::Named;
use crate::union::mark::{self, Mark};
use crate::union::parent::Parent;
use crate::union::probe::is_plain;
use crate::union::{PATH_MAX, Union, check_name, fixed};

/// One end of a rename. Its object is entered in the table until the rename is over.
struct End<'a> {
    parent: &'a Parent,
    entry: &'a [u8],
    found: Option<Found>,
    id: Option<NodeId>,
    /// Whether the lower layers show something under this name.
    hides: bool,
    /// Whether the upper had an entry under this name at the lookup, perhaps a whiteout.
    occupied: bool,
}

impl End<'_> {
    fn is_dir(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.stack.is_some())
    }

    fn dir(&self) -> Option<NodeId> {
        self.id.filter(|_| self.is_dir())
    }

    fn file(&self) -> Option<NodeId> {
        self.id.filter(|_| !self.is_dir())
    }
}

/// Both ends, and the flags of the rename.
struct Move<'a> {
    source: End<'a>,
    target: End<'a>,
    flags: RenameFlags,
}

/// The result of a try.
enum Tried {
    Done,
    /// A copy-up came between: the object found is not the locked one.
    Again,
    /// A directory moves, so the lock of renames is needed.
    Alone,
}

/// While this lives, places in the tree may be outdated.
struct Moving<'a>(&'a DirRef);

impl<'a> Moving<'a> {
    fn new(tree: &'a DirRef) -> Self {
        tree.moving(true);
        Self(tree)
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.moving(false);
    }
}

impl Union {
    /// Moves an object.
    ///
    /// # Errors
    /// As renameat2(2); `EXDEV` between a graft and the union.
    pub fn rename(
        &self,
        parent: NodeId,
        entry: &[u8],
        to: NodeId,
        to_entry: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        check_name(entry)?;
        check_name(to_entry)?;
        if self.layers.is_graft_place(parent, entry) || self.layers.is_graft_place(to, to_entry) {
            return Err(Errno::BUSY.into());
        }
        let mut alone = parent != to;
        loop {
            let _one = alone.then(|| self.rename.lock());
            let from = self.parent(parent)?;
            let other = (to != parent).then(|| self.parent(to)).transpose()?;
            let parents = Parents { from: &from, to: other.as_ref().unwrap_or(&from) };
            let tried = parents.locked(&self.table, |parents| {
                self.check_parents(parents, (entry, to_entry), flags)?;
                let source = self.end(parents.from, entry)?;
                let target =
                    self.end(parents.to, to_entry).inspect_err(|_| self.drop_end(&source))?;
                let moved = Move { source, target, flags };
                let tried = self.try_move(&moved, alone);
                self.drop_end(&moved.source);
                self.drop_end(&moved.target);
                tried
            })?;
            match tried {
                Tried::Done => return Ok(()),
                Tried::Again => {}
                Tried::Alone => alone = true,
            }
        }
    }

    fn check_parents(
        &self,
        parents: &Parents<'_>,
        (entry, to_entry): (&[u8], &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let graft = parents.from.stack.graft;
        if graft != parents.to.stack.graft {
            return Err(Errno::XDEV.into());
        }
        if flags.whiteout && graft.is_none() && !self.layers.marks_any_kind() {
            // The device that it leaves could not be marked as one that a user made.
            return Err(Errno::INVAL.into());
        }
        if graft.is_none() {
            self.layers.refuse_aufs_name(&parents.to.dir, to_entry)?;
            if flags.exchange {
                self.layers.refuse_aufs_name(&parents.from.dir, entry)?;
            }
        }
        Ok(())
    }

    fn end<'a>(&self, parent: &'a Parent, entry: &'a [u8]) -> Result<End<'a>> {
        let hides = self.layers.has_lower_entry(&parent.stack, entry)?;
        let Named { found, occupied } =
            self.find_to_change(&self.table.node(parent.id)?, entry, hides)?;
        let (found, id) = found.unzip();
        Ok(End { parent, entry, found, id, hides, occupied })
    }

    fn drop_end(&self, end: &End<'_>) {
        if let Some(id) = end.id {
            self.forget(id, 1);
        }
    }

    fn try_move(&self, moved: &Move<'_>, alone: bool) -> Result<Tried> {
        let Move { source, target, flags } = moved;
        if !alone && (source.is_dir() || target.is_dir()) {
            return Ok(Tried::Alone);
        }
        if !flags.noreplace && source.id.is_some() && source.id == target.id {
            // Two names of one file: rename(2) does nothing.
            return Ok(Tried::Done);
        }
        self.check_loop(moved)?;
        let replaced = target.dir().filter(|_| !flags.exchange);
        let victim = replaced.and_then(|id| self.table.find(id));
        self.table.with_victim(victim.as_ref(), || {
            self.check(source, target, *flags)?;
            self.check_flags(source, target)?;
            if source.parent.stack.graft.is_none() {
                self.make_dir_movable(source, target)?;
                if flags.exchange {
                    self.make_dir_movable(target, source)?;
                }
            }
            self.table.with_files(source.file(), target.file(), |a, b| {
                let known = |end: &End<'_>, held: Option<&Held<'_>>| match (held, &end.found) {
                    (Some(held), Some(found)) => held.node.key == self.layers.key_of(found),
                    _ => true,
                };
                if !known(source, a.as_deref()) || !known(target, b.as_deref()) {
                    return Ok(Tried::Again);
                }
                self.move_locked(moved, a, b).map(|()| Tried::Done)
            })
        })
    }

    // A directory cannot move below itself.
    fn check_loop(&self, moved: &Move<'_>) -> Result<()> {
        let Move { source, target, flags } = moved;
        if source.dir().is_some_and(|id| self.table.is_above(id, target.parent.id)) {
            return Err(Errno::INVAL.into());
        }
        if target.dir().is_some_and(|id| self.table.is_above(id, source.parent.id)) {
            let errno = if flags.exchange { Errno::INVAL } else { Errno::NOTEMPTY };
            return Err(errno.into());
        }
        Ok(())
    }

    fn check(&self, source: &End<'_>, target: &End<'_>, flags: RenameFlags) -> Result<()> {
        if source.found.is_none() {
            return Err(Errno::NOENT.into());
        }
        if flags.exchange {
            let both = target.found.is_some();
            return if both { Ok(()) } else { Err(Errno::NOENT.into()) };
        }
        let Some(found) = &target.found else { return Ok(()) };
        if flags.noreplace {
            return Err(Errno::EXIST.into());
        }
        match (source.is_dir(), &found.stack) {
            (true, None) => Err(Errno::NOTDIR.into()),
            (false, Some(_)) => Err(Errno::ISDIR.into()),
            (true, Some(stack)) if stack.graft.is_none() && !self.lister().is_empty(stack)? => {
                Err(Errno::NOTEMPTY.into())
            }
            _ => Ok(()),
        }
    }

    fn check_flags(&self, source: &End<'_>, target: &End<'_>) -> Result<()> {
        self.fixed.may_change(source.parent.id, false)?;
        self.fixed.may_change(target.parent.id, target.found.is_none())?;
        let found = [&source.found, &target.found];
        found.into_iter().flatten().try_for_each(|found| fixed::may_leave(&found.stat))
    }

    // Everything that a rename changes is locked, except for the places of directories.
    fn move_locked(
        &self,
        moved: &Move<'_>,
        mut source_file: Option<&mut Held<'_>>,
        mut target_file: Option<&mut Held<'_>>,
    ) -> Result<()> {
        let Move { source, target, flags } = moved;
        let graft = source.parent.stack.graft.is_some();
        if !graft {
            if let Some(held) = &mut source_file {
                self.make_file_movable(held, source, target)?;
            }
            if let Some(held) = target_file.as_mut().filter(|_| flags.exchange) {
                self.make_file_movable(held, target, source)?;
            }
        }
        self.table.with_dirs(source.dir(), target.dir(), || {
            let go = || match (graft, flags.exchange) {
                (false, false) => self.replace(source, target, flags.whiteout),
                _ => source.parent.step_with(target.parent, || {
                    let to = target.parent.dir.as_ref();
                    source.parent.dir.rename(source.entry, to, target.entry, *flags)
                }),
            };
            let _moving =
                (source.is_dir() || target.is_dir()).then(|| Moving::new(&source.parent.dir));
            match &mut target_file {
                _ if flags.exchange => go()?,
                Some(held) => self.replace_file(target, held, go)?,
                None => self.replace_dir(target, go)?,
            }
            self.moved(source, source_file, target)?;
            if flags.exchange {
                self.moved(target, target_file, source)?;
            }
            Ok(())
        })?;
        source.parent.body()?.changed();
        target.parent.body()?.changed();
        self.set_impure_by(source, target.parent)?;
        if flags.exchange { self.set_impure_by(target, source.parent) } else { Ok(()) }
    }

    // Only an entry that shows a number other than its own has one stored.
    fn set_impure_by(&self, end: &End<'_>, to: &Parent) -> Result<()> {
        let Some(found) = &end.found else { return Ok(()) };
        let ino = end.id.and_then(|id| self.ino(id)).unwrap_or(found.ino);
        let borrowed = found.is_lower() || ino != self.layers.show_ino(&found.stat);
        if borrowed { self.set_impure_for(to) } else { Ok(()) }
    }

    fn replace_file(
        &self,
        target: &End<'_>,
        held: &mut Held<'_>,
        go: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(found) = &target.found else { return go() };
        if target.parent.stack.graft.is_none() {
            self.count_names(held, found)?;
        }
        let before = self.table.stat_state(&held.node, held.state)?;
        // Needed only for a file in the index: the name may not be a link to it.
        let named =
            held.state.indexed && self.layers.is_occupied(&target.parent.dir, target.entry)?;
        if before.nlink <= 1 && !self.layers.keeps_names(held.state, named)? {
            return self.leave_last(held, &before, go);
        }
        self.keep_found(target.parent, target.entry, held)?;
        go()?;
        if held.state.indexed && !named && before.nlink > 1 {
            let diff = held.state.nlink_diff - 1;
            self.layers.write_nlink_diff(held.state, diff)?;
        }
        self.lose_name(target.parent, target.entry, held)
    }

    fn replace_dir(&self, target: &End<'_>, go: impl FnOnce() -> Result<()>) -> Result<()> {
        let node = target.dir().and_then(|id| self.table.find(id));
        match (node, &target.found) {
            (Some(node), Some(found)) => self.leave_dir(&node, Stat { nlink: 0, ..found.stat }, go),
            _ => go(),
        }
    }

    /// Moves the source over the entry of the target name.
    fn replace(&self, source: &End<'_>, target: &End<'_>, user_whiteout: bool) -> Result<()> {
        if target.is_dir() && self.layers.is_occupied(&target.parent.dir, target.entry)? {
            self.clear_whiteouts(target)?;
        }
        let device = if user_whiteout { Some(self.stage_plain_device()?) } else { None };
        source.parent.step_with(target.parent, || {
            self.replace_name(source, target)?;
            if let Some(name) = device {
                let work = self.layers.work()?;
                let flags = RenameFlags::default();
                work.rename(&name, source.parent.dir.as_ref(), source.entry, flags)?;
            }
            Ok(())
        })
    }

    fn replace_name(&self, source: &End<'_>, target: &End<'_>) -> Result<()> {
        let aufs = self.layers.writes_aufs_whiteouts();
        let late = source.hides
            && aufs
            && self.layers.needs_xattr_whiteout(&source.parent.dir, source.entry)?;
        if source.hides && aufs && !late {
            self.layers.aufs_whiteout(&source.parent.dir, source.entry)?;
        }
        let to = target.parent.dir.as_ref();
        // A name that shows nothing stays as it was found: no copy-up gets a hidden name.
        let over_whiteout = source.is_dir() && target.found.is_none() && target.occupied;
        if over_whiteout {
            // A directory cannot replace a whiteout: they are exchanged.
            let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
            source.parent.dir.rename(source.entry, to, target.entry, flags)?;
            if !source.hides || aufs {
                source.parent.dir.unlink(source.entry)?;
            }
        } else {
            let whiteout = source.hides && !aufs;
            let flags = RenameFlags { whiteout, ..RenameFlags::default() };
            source.parent.dir.rename(source.entry, to, target.entry, flags)?;
        }
        if late { self.layers.whiteout(&source.parent.dir, source.entry) } else { Ok(()) }
    }

    // RENAME_WHITEOUT leaves a device that the user requested and sees.
    fn stage_plain_device(&self) -> Result<Name> {
        let (work, own) = (self.layers.work()?, self.layers.own()?);
        let name = self.layers.unique_name();
        work.mknod(&name, Kind::Char.mode_bits(), 0, own)?;
        self.layers.set_plain(work, &name)?;
        Ok(name)
    }

    fn make_file_movable(&self, held: &mut Held<'_>, end: &End<'_>, other: &End<'_>) -> Result<()> {
        let place = self.copy_up_movable(held, end.parent.id == other.parent.id)?;
        // A name of the upper stays while its directory is locked.
        let named = |found: &Found| found.place.is_at(&end.parent.dir, end.entry);
        if !end.found.as_ref().is_some_and(named) {
            self.copy_up_name(held, &place, end.parent, end.entry)?;
        }
        if mark::is_aufs_name(other.entry) && held.node.kind == Kind::File {
            self.layers.set_plain(&end.parent.dir, end.entry)?;
        }
        Ok(())
    }

    /// Gives a copied-up file exactly this name: a file with several names may be in the upper
    /// under another name, or only in the index.
    pub(super) fn copy_up_name(
        &self,
        held: &mut Held<'_>,
        place: &Place,
        parent: &Parent,
        entry: &[u8],
    ) -> Result<()> {
        let dir = &parent.dir;
        if exists_as_object(dir, entry)? {
            return Ok(());
        }
        if mark::is_aufs_name(entry) && held.node.kind == Kind::File {
            self.layers.set_plain(&place.dir, &place.name)?;
        }
        // For a user nothing changes in the directory.
        parent.body()?.step(|| {
            let before = dir.stat(None)?;
            place.dir.link(&place.name, dir.as_ref(), entry)?;
            dir.set_attr(None, &times(&before))
        })?;
        if held.state.indexed {
            let diff = held.state.nlink_diff - 1;
            self.layers.write_nlink_diff(held.state, diff)?;
        }
        Ok(())
    }

    /// Copies a directory up in a form that stays valid under another name.
    fn make_dir_movable(&self, end: &End<'_>, other: &End<'_>) -> Result<()> {
        let Some(id) = end.dir() else { return Ok(()) };
        let node = self.table.node(id)?;
        if node.dir()?.stack().has_lower() {
            return self.make_merged_dir_movable(id, end);
        }
        let is_over = || self.layers.is_occupied(&other.parent.dir, other.entry);
        if other.hides || (other.parent.stack.has_lower() && is_over()?) {
            self.layers.set_opaque(&end.parent.dir, Some(end.entry))?;
        }
        Ok(())
    }

    fn make_merged_dir_movable(&self, id: NodeId, end: &End<'_>) -> Result<()> {
        if !self.layers.options().redirect {
            return self.copy_up_tree(id);
        }
        self.copy_up_dir(id)?;
        let path = self.lower_path(&self.table.node(id)?)?;
        if path.len() >= PATH_MAX {
            return self.copy_up_tree(id);
        }
        let key = self.layers.mark_key(Mark::Redirect);
        end.parent.dir.set_xattr(Some(end.entry), &key, &path, XattrFlags::default())
    }

    /// Copies a whole tree up, so that its directories need no layers below.
    fn copy_up_tree(&self, id: NodeId) -> Result<()> {
        self.table.add_lookup(id).ok_or(Errno::STALE)?;
        let mut held = vec![id];
        let mut at = 0;
        let done = loop {
            let Some(id) = held.get(at).copied() else { break Ok(()) };
            match self.copy_up_entries(id) {
                Ok(below) => held.extend(below),
                Err(error) => break Err(error),
            }
            at += 1;
        };
        // Each directory after everything below it.
        let done = done.and_then(|()| held.iter().rev().try_for_each(|id| self.cut_off(*id)));
        held.into_iter().rev().for_each(|id| self.forget(id, 1));
        done
    }

    // Copies up a directory with all its entries that are not directories. Returns its directories,
    // each with a lookup.
    fn copy_up_entries(&self, id: NodeId) -> Result<Vec<NodeId>> {
        self.with_parent(id, |parent| {
            let node = self.table.node(id)?;
            let mut below = Vec::new();
            let mut copy_up = || {
                for entry in self.lister().entries(&parent.stack)? {
                    let Some(child) = self.lookup_in(&node, &entry)? else { continue };
                    if child.stat.kind() == Kind::Dir {
                        below.push(child.node);
                        continue;
                    }
                    let copied = self.table.with_file(child.node, |held| {
                        let place = self.copy_up_file(held, Data::Whole)?;
                        self.copy_up_name(held, &place, parent, &entry)
                    });
                    self.forget(child.node, 1);
                    copied?;
                }
                Ok(())
            };
            let copied = copy_up();
            if let Err(error) = copied {
                below.into_iter().for_each(|id| self.forget(id, 1));
                return Err(error);
            }
            Ok(below)
        })
    }

    // Ends the merging of a directory that was copied up as a whole with the layers below.
    fn cut_off(&self, id: NodeId) -> Result<()> {
        self.with_parent(id, |parent| {
            let node = self.table.node(id)?;
            let body = node.dir()?;
            self.layers.set_opaque(&parent.dir, None)?;
            self.layers.set_impure(body, &parent.dir)?;
            self.layers.store_ino(&parent.dir, None, (parent.dir.stat(None)?.ino, node.ino))?;
            body.set_stack(Stack { upper: Some(Arc::clone(&parent.dir)), ..Stack::default() });
            Ok(())
        })
    }

    /// Replaces a directory that holds only whiteouts by an empty one with the same attributes, so
    /// that a rename can replace it.
    fn clear_whiteouts(&self, target: &End<'_>) -> Result<()> {
        let dir = target.parent.dir.dir(target.entry);
        let mut empty = true;
        dir.list(0, &mut |_| {
            empty = false;
            false
        })?;
        if empty {
            return Ok(());
        }
        let (work, own) = (self.layers.work()?, self.layers.own()?);
        let stat = dir.stat(None)?;
        let name = self.layers.unique_name();
        work.mkdir(&name, 0o700, own)?;
        let from = Place { layer: UPPER, dir: Arc::clone(&dir), name: Name::new() };
        self.layers.copy_xattrs(&from, work, &name)?;
        self.layers.set_opaque(work, Some(&name))?;
        let change = AttrChange {
            mode: Some(stat.mode & MODE_MASK),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            ..times(&stat)
        };
        work.set_attr(Some(&name), &change)?;
        let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
        work.rename(&name, target.parent.dir.as_ref(), target.entry, flags)?;
        self.layers.remove_staged_dir(&name)
    }

    /// After the move, gives the node of one end its new place, the former place of the other end.
    fn moved(&self, end: &End<'_>, held: Option<&mut Held<'_>>, to: &End<'_>) -> Result<()> {
        let Some(id) = end.id else { return Ok(()) };
        let Some(held) = held else {
            let node = self.table.node(id)?;
            if let Some(upper) = &node.dir()?.stack().upper {
                upper.relocate(&to.parent.dir, to.entry);
            }
            self.table.relocate(id, to.parent.id, to.entry);
            return Ok(());
        };
        held.state.drop_alias(end.parent.id, end.entry);
        if held.is_at(end.parent.id, end.entry) {
            self.table.relocate(id, to.parent.id, to.entry);
        } else {
            held.state.add_alias(to.parent.id, to.entry);
        }
        Ok(())
    }
}

fn exists_as_object(dir: &DirRef, entry: &[u8]) -> Result<bool> {
    let stat = match dir.stat(Some(entry)) {
        Ok(stat) => stat,
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NAMETOOLONG) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(!stat.is_whiteout_device() || is_plain(dir, entry)?)
}
