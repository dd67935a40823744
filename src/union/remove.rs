//! Removals: names, files with several names, directories.
//!
//! The last name of an open file goes and the file is parked in the work directory, so that no
//! descriptor is held for it. A directory that holds nothing but whiteouts is moved away first.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Name, NodeId, RenameFlags, Stat};
use crate::union::body::{FIRST_GRAFT, FileState, Life, Place, Stack, UPPER};
use crate::union::copyup::Data;
use crate::union::layer::DirRef;
use crate::union::namespace::Parent;
use crate::union::resolve::Found;
use crate::union::table::Node;
use crate::union::{Union, check_name, dir_of};

impl Union {
    /// Removes an entry that is no directory.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn unlink(&self, parent: NodeId, entry: &[u8]) -> Result<()> {
        check_name(entry)?;
        if self.is_graft_place(parent, entry) {
            return Err(Errno::BUSY.into());
        }
        let parent = self.parent(parent)?;
        let found = self.resolve(&parent.stack, entry)?.ok_or(Errno::NOENT)?;
        if found.stack.is_some() {
            return Err(Errno::ISDIR.into());
        }
        let known = self.table.find_key(self.key_of(&found));
        let hides = self.has_lower_entry(&parent.stack, entry)?;
        match known.and_then(|id| self.table.find(id)) {
            Some(node) => self.unlink_known(&parent, entry, &found, &node, hides)?,
            None => self.unlink_unknown(&parent, entry, found, hides)?,
        }
        parent.body()?.changed();
        Ok(())
    }

    /// Before a name of a lower file with several names goes: its copy in the index keeps count of
    /// those that are left.
    pub(super) fn count_names(
        &self,
        node: &Node,
        state: &mut FileState,
        found: &Found,
    ) -> Result<()> {
        let several = found.stat.nlink > 1 && self.can_index(found.stat.kind());
        if is_lower(found) && several && state.place.is_none() && self.upper()?.index.is_some() {
            self.copy_up(node, state, &found.place, Data::Elsewhere, false)?;
        }
        Ok(())
    }

    // A lower file with several names is tracked by its count, so it is entered for the moment.
    fn unlink_unknown(
        &self,
        parent: &Parent,
        entry: &[u8],
        found: Found,
        hides: bool,
    ) -> Result<()> {
        if !hides && found.indexed.is_none() {
            return parent.dir.unlink(entry);
        }
        if found.stat.nlink <= 1 && found.indexed.is_none() {
            return self.whiteout(&parent.dir, entry);
        }
        let told = self.enter(parent.id, entry, found)?;
        let found = self.resolve(&parent.stack, entry)?.ok_or(Errno::NOENT)?;
        let node = self.node(told.node)?;
        let done = self.unlink_known(parent, entry, &found, &node, hides);
        self.forget(told.node, 1);
        done
    }

    fn unlink_known(
        &self,
        parent: &Parent,
        entry: &[u8],
        found: &Found,
        node: &Node,
        hides: bool,
    ) -> Result<()> {
        let body = self.file_body(node.id)?;
        let file = body.file().ok_or(Errno::ISDIR)?;
        let mut state = file.state.lock();
        let lower = is_lower(found);
        self.count_names(node, &mut state, found)?;
        let before = self.stat_state(node, &state)?;
        let last = before.nlink <= 1 || (lower && !state.indexed && found.stat.nlink <= 1);
        let named = !lower && self.is_occupied(&parent.dir, entry)?;
        if last {
            self.unlink_last(parent, entry, node, &mut state, &before, named, hides)?;
        } else {
            self.remove_name(parent, entry, named, hides)?;
            if state.indexed && !named {
                let diff = state.nlink_diff - 1;
                self.write_nlink_diff(&mut state, diff)?;
            }
            self.lose_name(parent, entry, node, &mut state)?;
        }
        Ok(())
    }

    fn remove_name(&self, parent: &Parent, entry: &[u8], named: bool, hides: bool) -> Result<()> {
        if hides {
            self.whiteout(&parent.dir, entry)
        } else if named {
            parent.dir.unlink(entry)
        } else {
            Ok(())
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn unlink_last(
        &self,
        parent: &Parent,
        entry: &[u8],
        node: &Node,
        state: &mut FileState,
        before: &Stat,
        named: bool,
        hides: bool,
    ) -> Result<()> {
        let gone = Stat { nlink: 0, ..*before };
        let lower = node.key.layer() != UPPER && node.key.layer() < FIRST_GRAFT;
        if state.opens == 0 {
            self.remove_name(parent, entry, named, hides)?;
            if state.indexed {
                self.remove_indexed(state)?;
            }
            state.life = Life::Gone(gone);
            state.file = None;
        } else if lower && !state.indexed {
            state.place = Some(self.place(node, Some(state))?);
            self.remove_name(parent, entry, named, hides)?;
            state.life = Life::Unlinked;
        } else if parent.stack.graft.is_some() {
            // A graft has no work directory of ours: the open file itself keeps the object.
            self.keep_open(node, state)?;
            parent.dir.unlink(entry)?;
            state.life = Life::Gone(gone);
        } else {
            let parked = self.unique_name();
            let place = self.place(node, Some(state))?;
            let orphans = &self.upper()?.orphans;
            place.dir.link(&place.name, orphans.as_ref(), &parked)?;
            self.remove_name(parent, entry, named, hides)?;
            if state.indexed {
                self.remove_indexed(state)?;
            }
            state.place = Some(Place { layer: UPPER, dir: Arc::clone(orphans), name: parked });
            state.life = Life::Unlinked;
        }
        state.aliases.clear();
        self.table.unkey(node.id);
        Ok(())
    }

    /// Removes the entry of a file in the index.
    pub(super) fn remove_indexed(&self, state: &mut FileState) -> Result<()> {
        if let Some(place) = state.place.take() {
            place.dir.unlink(&place.name)?;
        }
        state.indexed = false;
        state.nlink_diff = 0;
        Ok(())
    }

    /// After one of several names is gone: another one is where the object is found.
    pub(super) fn lose_name(
        &self,
        parent: &Parent,
        entry: &[u8],
        node: &Node,
        state: &mut FileState,
    ) -> Result<()> {
        state.drop_alias(parent.id, entry);
        if node.parent != parent.id || node.name[..] != *entry || state.place.is_some() {
            return Ok(());
        }
        while let Some((id, name)) = state.aliases.pop() {
            let Some(other) = self.table.find(id) else { continue };
            let Ok(body) = dir_of(&other) else { continue };
            let Some(found) = self.resolve(&body.stack(), &name)? else { continue };
            if self.key_of(&found) == node.key {
                self.table.relocate(node.id, id, &name);
                return Ok(());
            }
        }
        // No other name is known: it is found again by the next lookup of one.
        if state.opens > 0 {
            return self.keep_open(node, state);
        }
        self.table.unkey(node.id);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As rmdir(2).
    pub fn rmdir(&self, parent: NodeId, entry: &[u8]) -> Result<()> {
        check_name(entry)?;
        if self.is_graft_place(parent, entry) {
            return Err(Errno::BUSY.into());
        }
        let parent = self.parent(parent)?;
        let found = self.resolve(&parent.stack, entry)?.ok_or(Errno::NOENT)?;
        let stack = found.stack.as_ref().ok_or(Errno::NOTDIR)?;
        let node = self.table.find_key(self.key_of(&found)).and_then(|id| self.table.find(id));
        if let Some(node) = &node
            && dir_of(node)?.has_grafts.load(crate::sync::Ordering::Acquire)
        {
            return Err(Errno::BUSY.into());
        }
        let gone = Stat { nlink: 0, ..found.stat };
        if stack.graft.is_some() {
            parent.dir.rmdir(entry)?;
        } else {
            let hides = self.has_lower_entry(&parent.stack, entry)?;
            // One that is in the upper alone is mostly what it seems.
            let simple = !hides && !stack.has_lower();
            let removed = if simple { try_rmdir(&parent.dir, entry)? } else { false };
            if !removed {
                if !self.is_empty(stack)? {
                    return Err(not_empty(&parent.dir)?.into());
                }
                self.remove_dir(&parent, entry, stack, hides)?;
            }
        }
        if let Some(node) = node {
            self.removed_dir(&node, gone)?;
        }
        parent.body()?.changed();
        Ok(())
    }

    /// Says that a directory is gone.
    pub(super) fn removed_dir(&self, node: &Node, gone: Stat) -> Result<()> {
        if dir_of(node)?.removed.set(gone).is_err() {
            tracing::debug!(node = node.id.0, "removed twice");
        }
        self.table.unkey(node.id);
        Ok(())
    }

    fn remove_dir(&self, parent: &Parent, entry: &[u8], stack: &Stack, hides: bool) -> Result<()> {
        if stack.upper.is_none() {
            return self.whiteout(&parent.dir, entry);
        }
        if !hides && try_rmdir(&parent.dir, entry)? {
            return Ok(());
        }
        let device = hides && !self.writes_aufs_whiteouts();
        let late = hides && !device && self.needs_xattr_whiteout(&parent.dir, entry)?;
        if hides && !device && !late {
            self.aufs_whiteout(&parent.dir, entry)?;
        }
        let temporary: Name = self.unique_name();
        let flags = RenameFlags { whiteout: device, ..RenameFlags::default() };
        parent.dir.rename(entry, self.upper()?.work.as_ref(), &temporary, flags)?;
        if late {
            self.whiteout(&parent.dir, entry)?;
        }
        self.remove_staged_dir(&temporary)
    }
}

// What may not be removed at all is refused before its content counts, as `may_delete()` does.
fn not_empty(parent: &DirRef) -> Result<Errno> {
    let stat = parent.stat(None)?;
    Ok(if stat.immutable || stat.append_only { Errno::PERM } else { Errno::NOTEMPTY })
}

// States whether the directory could be removed as it is, without whiteouts in it.
fn try_rmdir(dir: &DirRef, entry: &[u8]) -> Result<bool> {
    match dir.rmdir(entry) {
        Ok(()) => Ok(true),
        Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_lower(found: &Found) -> bool {
    found.place.layer != UPPER && found.place.layer < FIRST_GRAFT
}
