//! Rename, with all flags, of anything to anywhere in the same layer.
//!
//! A directory with parts in lower layers moves in one step: its upper part is renamed and says
//! by a redirect where its lower parts are. Where redirects cannot be used the whole tree is
//! copied up first. A directory that must not merge with what the new name has below is made
//! opaque before it moves. One rename of a mount that crosses directories runs at a time, as in
//! the kernel (`s_vfs_rename_mutex`).

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{AttrChange, Kind, MODE_MASK, Name, NodeId, RenameFlags, Stat, XattrFlags};
use crate::union::body::{Body, FIRST_GRAFT, FileState, Life, Place, Stack, UPPER};
use crate::union::copyup::{Data, times};
use crate::union::layer::DirRef;
use crate::union::mark::{self, Mark};
use crate::union::namespace::Parent;
use crate::union::resolve::Found;
use crate::union::table::Node;
use crate::union::{PATH_MAX, Union, check_name, dir_of};

/// One end of a rename.
struct End<'a> {
    parent: &'a Parent,
    entry: &'a [u8],
    found: Option<Found>,
    node: Option<Node>,
    /// The lower layers show something under this name.
    hides: bool,
    /// The upper directory holds something under this name, a whiteout included.
    occupied: bool,
}

impl End<'_> {
    fn is_dir(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.stack.is_some())
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
        if self.is_graft_place(parent, entry) || self.is_graft_place(to, to_entry) {
            return Err(Errno::BUSY.into());
        }
        let from_parent = self.parent(parent)?;
        let to_parent = self.parent(to)?;
        if from_parent.stack.graft != to_parent.stack.graft {
            return Err(Errno::XDEV.into());
        }
        if flags.whiteout && from_parent.stack.graft.is_none() && !self.marks_any_kind() {
            // The device that it leaves could not be marked as the user's own.
            return Err(Errno::INVAL.into());
        }
        if from_parent.stack.graft.is_none() {
            self.refuse_aufs_name(to_entry)?;
            if flags.exchange {
                self.refuse_aufs_name(entry)?;
            }
        }
        let _one = (parent != to).then(|| self.rename.lock());
        let source = self.end(&from_parent, entry)?;
        let target = self.end(&to_parent, to_entry)?;
        if !flags.noreplace && same_object(self, &source, &target) {
            return Ok(());
        }
        self.check(&source, &target, flags)?;
        if from_parent.stack.graft.is_some() {
            self.rename_in_graft(&source, &target, flags)?;
        } else if flags.exchange {
            self.exchange(&source, &target)?;
        } else {
            self.replace(&source, &target, flags.whiteout)?;
        }
        from_parent.body()?.changed();
        to_parent.body()?.changed();
        Ok(())
    }

    fn end<'a>(&self, parent: &'a Parent, entry: &'a [u8]) -> Result<End<'a>> {
        let found = self.resolve(&parent.stack, entry)?;
        let id = found.as_ref().and_then(|found| self.table.find_key(self.key_of(found)));
        let node = id.and_then(|id| self.table.find(id));
        let hides = self.has_lower_entry(&parent.stack, entry)?;
        let occupied = self.is_occupied(&parent.dir, entry)?;
        Ok(End { parent, entry, found, node, hides, occupied })
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
            (true, Some(stack)) if stack.graft.is_none() && !self.is_empty(stack)? => {
                Err(Errno::NOTEMPTY.into())
            }
            _ => Ok(()),
        }
    }

    fn rename_in_graft(
        &self,
        source: &End<'_>,
        target: &End<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let replaced = if flags.exchange { None } else { self.keep_replaced(target)? };
        let to = target.parent.dir.as_ref();
        source.parent.dir.rename(source.entry, to, target.entry, flags)?;
        self.settle(source, target, flags.exchange)?;
        self.settle_replaced(target, replaced)
    }

    /// Moves the source over what the target name shows.
    fn replace(&self, source: &End<'_>, target: &End<'_>, user_whiteout: bool) -> Result<()> {
        self.make_movable(source, target)?;
        if target.is_dir() && target.occupied {
            self.clear_whiteouts(target)?;
        }
        let replaced = self.keep_replaced(target)?;
        let device = if user_whiteout { Some(self.stage_plain_device()?) } else { None };
        let aufs = self.writes_aufs_whiteouts();
        let late =
            source.hides && aufs && self.needs_xattr_whiteout(&source.parent.dir, source.entry)?;
        if source.hides && aufs && !late {
            self.aufs_whiteout(&source.parent.dir, source.entry)?;
        }
        let to = target.parent.dir.as_ref();
        let over_whiteout = source.is_dir() && target.found.is_none() && target.occupied;
        if over_whiteout {
            // A directory cannot replace a whiteout: they change places.
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
        if late {
            self.whiteout(&source.parent.dir, source.entry)?;
        }
        if let Some(name) = device {
            let work = &self.upper()?.work;
            let flags = RenameFlags::default();
            work.rename(&name, source.parent.dir.as_ref(), source.entry, flags)?;
        }
        self.settle(source, target, false)?;
        self.settle_replaced(target, replaced)
    }

    fn exchange(&self, source: &End<'_>, target: &End<'_>) -> Result<()> {
        self.make_movable(source, target)?;
        self.make_movable(target, source)?;
        let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
        let to = target.parent.dir.as_ref();
        source.parent.dir.rename(source.entry, to, target.entry, flags)?;
        self.settle(source, target, true)
    }

    // What RENAME_WHITEOUT leaves behind is a device that the user asked for and sees.
    fn stage_plain_device(&self) -> Result<Name> {
        let upper = self.upper()?;
        let name = self.unique_name();
        upper.work.mknod(&name, Kind::Char.mode_bits(), 0, upper.own)?;
        self.set_plain(&upper.work, &name)?;
        Ok(name)
    }

    /// Brings an object into the upper in a form that keeps its meaning under another name.
    fn make_movable(&self, end: &End<'_>, other: &End<'_>) -> Result<()> {
        let Some(found) = &end.found else { return Ok(()) };
        if let Some(stack) = &found.stack {
            return self.make_dir_movable(end, other, stack);
        }
        let entered;
        let id = match &end.node {
            Some(node) => node.id,
            None => {
                entered = self.lookup(end.parent.id, end.entry)?.ok_or(Errno::NOENT)?.node;
                entered
            }
        };
        let done = self.make_file_movable(id, end, other);
        if end.node.is_none() {
            self.forget(id, 1);
        }
        done
    }

    fn make_file_movable(&self, id: NodeId, end: &End<'_>, other: &End<'_>) -> Result<()> {
        let node = self.node(id)?;
        let body = self.file_body(id)?;
        let file = body.file().ok_or(Errno::ISDIR)?;
        let mut state = file.state.lock();
        self.raise_name(&node, &mut state, &end.parent.dir, end.entry)?;
        if mark::is_aufs_name(other.entry) && node.kind == Kind::File {
            self.set_plain(&end.parent.dir, end.entry)?;
        }
        Ok(())
    }

    /// Brings a file into the upper under this very name: one with several may be known there by
    /// another, or by the index alone.
    fn raise_name(
        &self,
        node: &Node,
        state: &mut FileState,
        dir: &DirRef,
        entry: &[u8],
    ) -> Result<()> {
        let place = self.raise_file(node, state, Data::Whole)?;
        if exists_as_object(self, dir, entry)? {
            return Ok(());
        }
        // To a user nothing changes in the directory.
        let before = dir.stat(None)?;
        place.dir.link(&place.name, dir.as_ref(), entry)?;
        dir.set_attr(None, &times(&before))?;
        if state.indexed {
            let diff = state.nlink_diff - 1;
            self.write_nlink_diff(state, diff)?;
        }
        Ok(())
    }

    fn make_dir_movable(&self, end: &End<'_>, other: &End<'_>, stack: &Stack) -> Result<()> {
        if stack.has_lower() {
            let entry = self.lookup(end.parent.id, end.entry)?.ok_or(Errno::NOENT)?;
            let done = self.make_merged_dir_movable(entry.node, end);
            self.forget(entry.node, 1);
            return done;
        }
        if other.hides || (other.occupied && other.parent.stack.has_lower()) {
            self.set_opaque(&end.parent.dir, Some(end.entry))?;
        }
        Ok(())
    }

    fn make_merged_dir_movable(&self, id: NodeId, end: &End<'_>) -> Result<()> {
        if !self.options.redirect {
            return self.raise_tree(id, 0);
        }
        self.raise_dir(id)?;
        let path = self.lower_path(&self.node(id)?)?;
        if path.len() >= PATH_MAX {
            return self.raise_tree(id, 0);
        }
        let key = self.mark_key(Mark::Redirect);
        end.parent.dir.set_xattr(Some(end.entry), &key, &path, XattrFlags::default())
    }

    /// The path under which the layers below the upper know a directory.
    fn lower_path(&self, node: &Node) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = node.clone();
        while at.id != NodeId::ROOT {
            let parent = self.node(at.parent)?;
            let upper = dir_of(&parent)?.stack().upper.clone();
            let mut name = at.name.to_vec();
            if let Some(dir) = upper {
                let place = Place { layer: UPPER, dir, name: at.name.clone() };
                if let Some(redirect) = self.read_mark(&place, Mark::Redirect)? {
                    name = redirect;
                }
            }
            let absolute = name.starts_with(b"/");
            parts.push(name);
            if absolute {
                break;
            }
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            if !part.starts_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Ok(path)
    }

    /// Copies a whole tree up, so that its directories need nothing below them.
    fn raise_tree(&self, id: NodeId, depth: usize) -> Result<()> {
        if depth > PATH_MAX / 2 {
            return Err(Errno::NAMETOOLONG.into());
        }
        let stack = self.raise_dir(id)?;
        for entry in self.entries(&stack)? {
            let Some(told) = self.lookup(id, &entry)? else { continue };
            let node = self.node(told.node)?;
            let done = if node.kind == Kind::Dir {
                self.raise_tree(told.node, depth + 1)
            } else {
                let body = self.file_body(told.node)?;
                let file = body.file().ok_or(Errno::IO)?;
                let mut state = file.state.lock();
                let dir = stack.upper.as_ref().ok_or(Errno::STALE)?;
                self.raise_name(&node, &mut state, dir, &entry)
            };
            self.forget(told.node, 1);
            done?;
        }
        let dir = stack.upper.clone().ok_or(Errno::STALE)?;
        self.set_opaque(&dir, None)?;
        let node = self.node(id)?;
        self.set_impure(dir_of(&node)?, &dir)?;
        self.store_ino(&dir, None, node.ino)?;
        let lowers = smallvec::SmallVec::new();
        dir_of(&node)?.set_stack(Stack { upper: Some(dir), lowers, graft: None });
        Ok(())
    }

    /// Puts an empty directory of the same attributes in the place of one that shows nothing but
    /// holds whiteouts, so that a rename can replace it.
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
        let upper = self.upper()?;
        let stat = dir.stat(None)?;
        let name = self.unique_name();
        upper.work.mkdir(&name, 0o700, upper.own)?;
        let from = Place { layer: UPPER, dir: Arc::clone(&dir), name: Name::new() };
        self.copy_xattrs(&from, &upper.work, &name)?;
        self.set_opaque(&upper.work, Some(&name))?;
        let change = AttrChange {
            mode: Some(stat.mode & MODE_MASK),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            ..times(&stat)
        };
        upper.work.set_attr(Some(&name), &change)?;
        let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
        upper.work.rename(&name, target.parent.dir.as_ref(), target.entry, flags)?;
        self.remove_staged_dir(&name)
    }

    /// Before the target is replaced: an open file stays reachable by a name of ours.
    fn keep_replaced(&self, target: &End<'_>) -> Result<Option<Stat>> {
        let (Some(found), Some(node)) = (&target.found, &target.node) else { return Ok(None) };
        if found.stack.is_some() {
            return Ok(Some(Stat { nlink: 0, ..found.stat }));
        }
        let body = self.file_body(node.id)?;
        let file = body.file().ok_or(Errno::ISDIR)?;
        let mut state = file.state.lock();
        self.count_names(node, &mut state, found)?;
        let before = self.stat_state(node, &state)?;
        if before.nlink > 1 {
            if state.indexed && !target.occupied {
                let diff = state.nlink_diff - 1;
                self.write_nlink_diff(&mut state, diff)?;
            }
            return Ok(Some(before));
        }
        if state.opens > 0 {
            let place = self.place(node, Some(&state))?;
            if place.layer >= FIRST_GRAFT {
                self.keep_open(node, &mut state)?;
            } else if place.layer == UPPER {
                let parked = self.unique_name();
                let orphans = &self.upper()?.orphans;
                place.dir.link(&place.name, orphans.as_ref(), &parked)?;
                state.place = Some(Place { layer: UPPER, dir: Arc::clone(orphans), name: parked });
            } else {
                state.place = Some(place);
            }
        }
        Ok(Some(Stat { nlink: 0, ..before }))
    }

    fn settle_replaced(&self, target: &End<'_>, replaced: Option<Stat>) -> Result<()> {
        let (Some(stat), Some(node)) = (replaced, &target.node) else { return Ok(()) };
        if node.kind == Kind::Dir {
            return self.removed_dir(node, stat);
        }
        let body = self.file_body(node.id)?;
        let file = body.file().ok_or(Errno::ISDIR)?;
        let mut state = file.state.lock();
        if stat.nlink > 0 {
            return self.lose_name(target.parent, target.entry, node, &mut state);
        }
        if state.indexed {
            // The name in the work directory, if it is open, leads to the file from now on.
            let index = self.index_place_of(node, &state)?;
            if let Some(place) = index {
                place.dir.unlink(&place.name)?;
            }
            state.indexed = false;
            state.nlink_diff = 0;
        }
        state.life =
            if state.opens > 0 && !state.pinned { Life::Unlinked } else { Life::Gone(stat) };
        state.aliases.clear();
        self.table.unkey(node.id);
        Ok(())
    }

    /// After the move: nodes and directories learn their new places.
    fn settle(&self, source: &End<'_>, target: &End<'_>, exchanged: bool) -> Result<()> {
        self.moved(source, target.parent, target.entry)?;
        if exchanged {
            self.moved(target, source.parent, source.entry)?;
        }
        self.set_impure_for(target.parent)?;
        if exchanged { self.set_impure_for(source.parent) } else { Ok(()) }
    }

    fn moved(&self, end: &End<'_>, parent: &Parent, entry: &[u8]) -> Result<()> {
        let Some(node) = &end.node else { return Ok(()) };
        let Some(node) = self.table.find(node.id) else { return Ok(()) };
        if let Some(dir) = node.body.as_deref().and_then(Body::dir) {
            if let Some(upper) = &dir.stack().upper {
                upper.relocate(&parent.dir, entry);
            }
            self.table.relocate(node.id, parent.id, entry);
            return Ok(());
        }
        if let Some(file) = node.body.as_deref().and_then(Body::file) {
            let mut state = file.state.lock();
            state.drop_alias(end.parent.id, end.entry);
            if node.parent != end.parent.id || node.name[..] != *end.entry {
                state.add_alias(parent.id, entry);
                return Ok(());
            }
        }
        self.table.relocate(node.id, parent.id, entry);
        Ok(())
    }
}

fn exists_as_object(union: &Union, dir: &DirRef, entry: &[u8]) -> Result<bool> {
    if !union.is_occupied(dir, entry)? {
        return Ok(false);
    }
    let stat = dir.stat(Some(entry))?;
    Ok(!stat.is_whiteout_device() || crate::union::body::is_plain(dir, entry)?)
}

// Two names of one file: rename(2) does nothing.
fn same_object(union: &Union, source: &End<'_>, target: &End<'_>) -> bool {
    match (&source.found, &target.found) {
        (Some(a), Some(b)) => union.key_of(a) == union.key_of(b),
        _ => false,
    }
}
