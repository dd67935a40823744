//! Removals: names, files with several names, directories.
//!
//! An open file that loses its last name is parked in the work directory, so that no descriptor is
//! held for it. A directory that holds only whiteouts is moved away first.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{Name, NodeId, RenameFlags, Stat};
use crate::union::body::{FIRST_GRAFT, FileState, Life, Place, Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::layers::found::Found;
use crate::union::layers::stage::Data;
use crate::union::lock::Held;
use crate::union::parent::Parent;
use crate::union::table::Node;
use crate::union::{Union, check_name, fixed};

/// The place of a file that loses its last name.
enum Parked {
    /// Under a name of ours in the work directory.
    Linked(Place),
    /// Behind a pin.
    Pinned(Place),
    /// In a lower layer, hidden.
    Lower(Place),
    /// Nowhere.
    Lost,
}

impl Union {
    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn unlink(&self, parent: NodeId, entry: &[u8]) -> Result<()> {
        check_name(entry)?;
        if self.layers.is_graft_place(parent, entry) {
            return Err(Errno::BUSY.into());
        }
        self.with_parent(parent, |parent| {
            let hides = self.layers.has_lower_entry(&parent.stack, entry)?;
            self.fixed.may_change(parent.id, false)?;
            self.with_entry(parent, entry, hides, |found, held| {
                fixed::may_leave(&found.stat)?;
                self.unlink_held(parent, entry, hides, (found, held))
            })?;
            parent.body()?.changed();
            Ok(())
        })
    }

    /// Passes the object of a name, which is not a directory, to `act`: the result of the lookup
    /// and its locked node. An unknown object is entered for the duration of the call.
    fn with_entry(
        &self,
        parent: &Parent,
        entry: &[u8],
        hides: bool,
        act: impl Fn(&Found, &mut Held<'_>) -> Result<()>,
    ) -> Result<()> {
        let node = self.table.node(parent.id)?;
        loop {
            let named = self.find_to_change(&node, entry, hides)?;
            let (found, id) = named.found.ok_or(Errno::NOENT)?;
            // A copy-up since then gave it another key.
            let done = self.table.with_file(id, |held| {
                let same = held.node.key == self.layers.key_of(&found);
                if same { act(&found, held).map(|()| true) } else { Ok(false) }
            });
            self.forget(id, 1);
            if done? {
                return Ok(());
            }
        }
    }

    /// Called before a name of a lower file with several names is removed: copies the file into the
    /// index, which counts the remaining names.
    pub(super) fn count_names(&self, held: &mut Held<'_>, found: &Found) -> Result<()> {
        let several =
            found.stat.nlink > 1 && self.layers.is_indexed(found.place.layer, &found.stat);
        if found.is_lower() && several && held.state.place.is_none() {
            self.copy_up(held, &found.place, Data::Elsewhere, false)?;
        }
        Ok(())
    }

    fn unlink_held(
        &self,
        parent: &Parent,
        entry: &[u8],
        hides: bool,
        (found, held): (&Found, &mut Held<'_>),
    ) -> Result<()> {
        let lower = found.is_lower();
        self.count_names(held, found)?;
        let before = self.table.stat_state(&held.node, held.state)?;
        let alone = lower && !held.state.indexed && found.stat.nlink <= 1;
        // A copy-up may have given this name to a file that was found in the index.
        let named = found.place.is_at(&parent.dir, entry)
            || (held.state.indexed && self.layers.is_occupied(&parent.dir, entry)?);
        if alone || (before.nlink <= 1 && !self.layers.keeps_names(held.state, named)?) {
            return self
                .leave_last(held, &before, || self.remove_name(parent, entry, named, hides));
        }
        self.keep_found(parent, entry, held)?;
        self.remove_name(parent, entry, named, hides)?;
        if held.state.indexed && !named && before.nlink > 1 {
            let diff = held.state.nlink_diff - 1;
            self.layers.write_nlink_diff(held.state, diff)?;
        }
        self.lose_name(parent, entry, held)
    }

    fn remove_name(&self, parent: &Parent, entry: &[u8], named: bool, hides: bool) -> Result<()> {
        parent.body()?.step(|| {
            if hides {
                self.layers.whiteout(&parent.dir, entry)
            } else if named {
                parent.dir.unlink(entry)
            } else {
                Ok(())
            }
        })
    }

    /// Removes the last name of a file by `remove`. The file lives on if it may be open, or about
    /// to be opened. Its key is removed before the backing may reuse its number for another object.
    pub(super) fn leave_last(
        &self,
        held: &mut Held<'_>,
        before: &Stat,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let parked = self.park(held)?;
        self.table.clear_key(held.node.id);
        if let Err(error) = remove() {
            self.table.replace_key(held.node.id, held.node.key);
            self.unpark(parked)?;
            return Err(error);
        }
        if held.state.indexed {
            self.remove_indexed(held.state)?;
        }
        held.state.aliases.clear();
        held.state.pinned = matches!(parked, Parked::Pinned(_));
        (held.state.life, held.state.place) = match parked {
            Parked::Linked(place) => (Life::Parked, Some(place)),
            Parked::Pinned(place) | Parked::Lower(place) => (Life::Kept, Some(place)),
            Parked::Lost => (Life::Gone(Stat { nlink: 0, ..*before }), None),
        };
        if held.state.opens == 0 {
            held.state.file = None;
            if held.state.pinned {
                self.handles.note_pin(&self.table, held.node.id);
            }
        }
        Ok(())
    }

    // Returns the place of a file after its last name is removed.
    fn park(&self, held: &Held<'_>) -> Result<Parked> {
        let place = self.table.place(&held.node, Some(held.state))?;
        if place.layer != UPPER && place.layer < FIRST_GRAFT {
            return Ok(Parked::Lower(place));
        }
        // A graft has no work directory of ours.
        if held.state.opens > 0 && place.layer == UPPER && !held.state.pinned {
            let name = self.layers.unique_name();
            let orphans = self.layers.orphans()?;
            place.dir.link(&place.name, orphans.as_ref(), &name)?;
            let dir = Arc::clone(orphans);
            return Ok(Parked::Linked(Place { layer: UPPER, dir, name }));
        }
        match place.dir.pin(&place.name) {
            Ok(dir) => Ok(Parked::Pinned(Place { dir, ..place })),
            // Without a descriptor the file is gone at once, which is right only if it is not open.
            Err(error) if held.state.opens == 0 => {
                tracing::debug!(%error, "a removed file is not kept");
                Ok(Parked::Lost)
            }
            Err(error) => Err(error),
        }
    }

    fn unpark(&self, parked: Parked) -> Result<()> {
        match parked {
            Parked::Linked(place) => place.dir.unlink(&place.name),
            Parked::Pinned(_) | Parked::Lower(_) | Parked::Lost => Ok(()),
        }
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

    /// Called before one of several names is removed: the kernel will decrement its link count. If
    /// the name is the one that leads to the object, a pin replaces it until another name is known.
    pub(super) fn keep_found(
        &self,
        parent: &Parent,
        entry: &[u8],
        held: &mut Held<'_>,
    ) -> Result<()> {
        let layer = held.node.key.layer();
        if layer < FIRST_GRAFT {
            self.handles.note_unlinked(held.node.id);
        }
        let ours = layer == UPPER || layer >= FIRST_GRAFT;
        if ours && held.is_at(parent.id, entry) && held.state.place.is_none() {
            self.table.pin(held)?;
        }
        Ok(())
    }

    /// Called after one of several names is removed: finds another name of the object.
    pub(super) fn lose_name(
        &self,
        parent: &Parent,
        entry: &[u8],
        held: &mut Held<'_>,
    ) -> Result<()> {
        held.state.drop_alias(parent.id, entry);
        if !held.is_at(parent.id, entry) {
            return Ok(());
        }
        let leads = held.state.place.is_none() || held.state.is_lost();
        while let Some((id, name)) = held.state.aliases.pop() {
            let Some(other) = self.table.find(id) else { continue };
            let Ok(body) = other.dir() else { continue };
            let Some(found) = self.layers.resolve(&body.stack(), &name)? else { continue };
            if self.layers.key_of(&found) == held.node.key {
                if leads {
                    held.state.place = None;
                    held.state.pinned = false;
                }
                self.table.relocate(held.node.id, id, &name);
                return Ok(());
            }
        }
        held.state.misnamed = !leads;
        if held.state.place.is_none() {
            // In a lower layer each name is an object of its own, and this one stays in place,
            // hidden.
            held.state.place = Some(self.table.place(&held.node, None)?);
            held.state.life = Life::Kept;
            self.table.clear_key(held.node.id);
        }
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As rmdir(2).
    pub fn rmdir(&self, parent: NodeId, entry: &[u8]) -> Result<()> {
        check_name(entry)?;
        if self.layers.is_graft_place(parent, entry) {
            return Err(Errno::BUSY.into());
        }
        self.with_parent(parent, |parent| {
            let hides = self.layers.has_lower_entry(&parent.stack, entry)?;
            let node = self.table.node(parent.id)?;
            let named = self.find_to_change(&node, entry, hides)?;
            let (found, id) = named.found.ok_or(Errno::NOENT)?;
            let done = self.rmdir_entered(parent, (entry, hides), &found, id);
            self.forget(id, 1);
            done
        })
    }

    fn rmdir_entered(
        &self,
        parent: &Parent,
        (entry, hides): (&[u8], bool),
        found: &Found,
        id: NodeId,
    ) -> Result<()> {
        if found.stack.is_none() {
            return Err(Errno::NOTDIR.into());
        }
        self.fixed.may_change(parent.id, false)?;
        fixed::may_leave(&found.stat)?;
        let node = self.table.node(id)?;
        if node.dir()?.has_grafts.load(Ordering::Acquire) {
            return Err(Errno::BUSY.into());
        }
        let gone = Stat { nlink: 0, ..found.stat };
        self.table.with_victim(Some(&node), || {
            self.table.with_dir(node.id, |node, body| {
                self.leave_dir(node, gone, || self.rmdir_in(parent, (entry, hides), &body.stack()))
            })
        })
    }

    fn rmdir_in(
        &self,
        parent: &Parent,
        (entry, hides): (&[u8], bool),
        stack: &Stack,
    ) -> Result<()> {
        let body = parent.body()?;
        if stack.graft.is_some() {
            body.step(|| parent.dir.rmdir(entry))?;
        } else {
            // A directory that is in the upper only is usually without whiteouts.
            let simple = !hides && !stack.has_lower();
            if !(simple && body.step(|| try_rmdir(&parent.dir, entry))?) {
                if !self.lister().is_empty(stack)? {
                    return Err(not_empty(&parent.dir)?.into());
                }
                body.step(|| self.remove_dir(parent, entry, stack, hides))?;
            }
        }
        body.changed();
        Ok(())
    }

    /// Removes a directory by `remove`, with its entries and its place locked. Its key is removed
    /// before the backing may reuse its number for another object.
    pub(super) fn leave_dir(
        &self,
        node: &Node,
        gone: Stat,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let was_keyed = self.table.clear_key(node.id);
        if let Err(error) = remove() {
            if was_keyed {
                self.table.replace_key(node.id, node.key);
            }
            return Err(error);
        }
        if node.dir()?.removed.set(gone).is_err() {
            tracing::debug!(node = node.id.0, "removed twice");
        }
        Ok(())
    }

    fn remove_dir(&self, parent: &Parent, entry: &[u8], stack: &Stack, hides: bool) -> Result<()> {
        if stack.upper.is_none() {
            return self.layers.whiteout(&parent.dir, entry);
        }
        if !hides && try_rmdir(&parent.dir, entry)? {
            return Ok(());
        }
        let device = hides && !self.layers.writes_aufs_whiteouts();
        let late = hides && !device && self.layers.needs_xattr_whiteout(&parent.dir, entry)?;
        if hides && !device && !late {
            self.layers.aufs_whiteout(&parent.dir, entry)?;
        }
        let temporary: Name = self.layers.unique_name();
        let flags = RenameFlags { whiteout: device, ..RenameFlags::default() };
        parent.dir.rename(entry, self.layers.work()?.as_ref(), &temporary, flags)?;
        if late {
            self.layers.whiteout(&parent.dir, entry)?;
        }
        self.layers.remove_staged_dir(&temporary)
    }
}

// A removal that is never permitted is refused before the content is checked, as in `may_delete()`.
fn not_empty(parent: &DirRef) -> Result<Errno> {
    let stat = parent.stat(None)?;
    Ok(if stat.immutable || stat.append_only { Errno::PERM } else { Errno::NOTEMPTY })
}

// Removes the directory as it is. Returns false if it holds entries, such as whiteouts.
fn try_rmdir(dir: &DirRef, entry: &[u8]) -> Result<bool> {
    match dir.rmdir(entry) {
        Ok(()) => Ok(true),
        Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}
