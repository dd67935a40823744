//! Lookups: the object of a name is entered in the table, once for each object.
//!
//! A lower object that comes into the upper during its lookup would get two nodes, and each would
//! copy it up: see [`Union::lookup_in`].

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{Kind, NodeId, Stat, name};
use crate::union::api::Entry;
use crate::union::body::{Body, DirBody, FIRST_GRAFT, FileBody, Life, Place, Stack, UPPER};
use crate::union::handles::is_small_lower;
use crate::union::layers::found::Found;
use crate::union::table::{NewNode, Node};
use crate::union::{Union, check_name};

/// The object of a name that is about to change.
pub(super) struct Named {
    /// The object, and its node with one more lookup.
    pub(super) found: Option<(Found, NodeId)>,
    /// Whether the writable part has an entry under the name, perhaps a whiteout.
    pub(super) occupied: bool,
}

impl Union {
    /// Finds an entry of a directory and counts a lookup on it; `None` if there is none.
    /// `.` and `..` lead to the directory itself and to its parent.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENAMETOOLONG`, `ESTALE` for an unknown node, or errors of the backing.
    pub fn lookup(&self, parent: NodeId, entry: &[u8]) -> Result<Option<Entry>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if entry == b"." || entry == b".." {
            return self.lookup_dot(parent, entry).map(Some);
        }
        check_name(entry)?;
        let node = self.table.node(parent)?;
        let body = node.dir()?;
        let _entries = body.reading();
        let found = self.lookup_in(&node, entry)?;
        if found.is_some_and(|entry| entry.stat.kind() != Kind::Dir) {
            self.listings.looked_up(&body.looked_up);
        }
        Ok(found)
    }

    /// [`Union::lookup`] of a name, with the entries of the directory locked.
    pub(super) fn lookup_in(&self, node: &Node, entry: &[u8]) -> Result<Option<Entry>> {
        if let Some(found) = self.find_graft(node, entry)? {
            return self.enter(node.id, entry, &found).map(|(entry, _)| Some(entry));
        }
        Ok(self.find_in(node, entry)?.map(|(_, entered)| entered))
    }

    /// Finds the object of a name of a directory, and enters it in the table. The entries of the
    /// directory are locked.
    pub(super) fn find_in(&self, node: &Node, entry: &[u8]) -> Result<Option<(Found, Entry)>> {
        let published = self.layers.published();
        let stack = node.dir()?.stack();
        let found = self.layers.resolve(&stack, entry)?;
        self.enter_found(node, entry, found, published)
    }

    /// Enters the object that a name was found to mean in the table. `published` was read before
    /// the lookup.
    fn enter_found(
        &self,
        node: &Node,
        entry: &[u8],
        mut found: Option<Found>,
        mut published: u64,
    ) -> Result<Option<(Found, Entry)>> {
        let body = node.dir()?;
        loop {
            let Some(object) = found else { return Ok(None) };
            let (entered, fresh) = self.enter(node.id, entry, &object)?;
            let give_up = |error| {
                self.table.clear_key_if(entered.node, self.layers.key_of(&object));
                self.forget(entered.node, 1);
                error
            };
            if fresh && object.data.is_some() {
                self.confirm_data(entered.node).map_err(give_up)?;
            }
            if !object.is_lower() || self.layers.published() == published {
                return Ok(Some((object, entered)));
            }
            // The object may be in the upper by now. Then the key of its lower object leads to
            // nothing, or to a second node, which was made just now and is dropped. A node that was
            // copied up since it was made has another key, and is the right one.
            published = self.layers.published();
            let again = self.layers.resolve(&body.stack(), entry);
            let again = again.inspect_err(|_| self.forget(entered.node, 1))?;
            if again
                .as_ref()
                .is_some_and(|found| self.layers.key_of(found) == self.layers.key_of(&object))
            {
                return Ok(Some((object, entered)));
            }
            if fresh {
                self.table.clear_key_if(entered.node, self.layers.key_of(&object));
            }
            self.forget(entered.node, 1);
            found = again;
        }
    }

    /// Checks again where the data of a file is that was just entered: a copy-up may have completed
    /// the file, and the kernel forgotten it, after its marks were read. From now on a copy-up
    /// finds the node.
    fn confirm_data(&self, id: NodeId) -> Result<()> {
        self.table.with_file(id, |held| {
            if held.state.data.is_none() || held.node.key.layer() != UPPER {
                return Ok(());
            }
            let place = self.table.place(&held.node, Some(held.state))?;
            if !self.layers.is_metacopy(&place)? {
                held.state.data = None;
                if held.state.opens == 0 {
                    held.state.file = None;
                    self.handles.release_id(held.state);
                }
            }
            Ok(())
        })
    }

    /// [`Union::find_in`] of an entry that is about to be removed, moved or replaced. `hides` is
    /// whether a lower part has the name too.
    pub(super) fn find_to_change(&self, node: &Node, entry: &[u8], hides: bool) -> Result<Named> {
        let published = self.layers.published();
        let stack = node.dir()?.stack();
        let stat = stack.stat_upper(entry)?;
        let occupied = stat.is_some();
        if !hides {
            let Some(stat) = stat else { return Ok(Named { found: None, occupied }) };
            if let Some(known) = self.find_known(node, &stack, entry, stat)? {
                return Ok(Named { found: Some(known), occupied });
            }
        }
        let found = self.layers.resolve_from(&stack, entry, stat)?;
        let found = self.enter_found(node, entry, found, published)?;
        Ok(Named { found: found.map(|(found, entered)| (found, entered.node)), occupied })
    }

    // Finds an entry of the upper with these attributes whose node is known by this name: its marks
    // were read when it was entered.
    fn find_known(
        &self,
        node: &Node,
        stack: &Stack,
        entry: &[u8],
        stat: Stat,
    ) -> Result<Option<(Found, NodeId)>> {
        let Some(upper) = stack.upper.as_ref().filter(|_| stack.graft.is_none()) else {
            return Ok(None);
        };
        let key = self.layers.key(UPPER, &stat);
        let Some(id) = self.table.find_key(key) else { return Ok(None) };
        let Some(known) = self.table.add_lookup(id) else { return Ok(None) };
        let is_it = known.key == key
            && known.kind == stat.kind()
            && known.parent == node.id
            && known.name[..] == *entry
            && !self.fixed.is_fixed(id);
        if !is_it {
            self.forget(id, 1);
            return Ok(None);
        }
        let stack = known.body.as_deref().and_then(Body::dir).map(|body| (*body.stack()).clone());
        let (place, ino) = (Place::new(UPPER, upper, entry), known.ino);
        let found = Found::alone(stat, place, ino, stack);
        Ok(Some((found, id)))
    }

    fn lookup_dot(&self, id: NodeId, entry: &[u8]) -> Result<Entry> {
        let node = self.table.node(id)?;
        let target = if entry == b"." { id } else { node.parent };
        let entry = self.entry_again(target)?;
        if entry.stat.nlink == 0 {
            // A file handle of a removed directory. Processes that have it open do not need the
            // lookup.
            self.forget(target, 1);
            return Err(Errno::STALE.into());
        }
        Ok(entry)
    }

    /// Returns a known object with its attributes; counts a lookup on it.
    pub(super) fn entry_again(&self, id: NodeId) -> Result<Entry> {
        self.table.add_lookup(id).ok_or(Errno::STALE)?;
        let stat = self.getattr(id).inspect_err(|_| self.forget(id, 1))?;
        Ok(Entry { node: id, stat })
    }

    fn find_graft(&self, node: &Node, entry: &[u8]) -> Result<Option<Found>> {
        if !node.dir()?.has_grafts.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.layers.find_graft(node.id, entry)
    }

    /// Enters an object in the table. Returns its entry for the kernel, and whether it is new.
    pub(super) fn enter(
        &self,
        parent: NodeId,
        entry: &[u8],
        found: &Found,
    ) -> Result<(Entry, bool)> {
        let key = self.layers.key_of(found);
        let kind = found.stat.kind();
        let small = is_small_lower(found.place.layer, &found.stat);
        let new = NewNode { parent, name: name(entry), key, ino: found.ino, kind, small };
        // The object of a graft is not below its parent, whatever its name is.
        let elsewhere = found.place.name[..] != *entry || self.layers.is_graft_place(parent, entry);
        let graft_file = found.stack.is_none() && elsewhere;
        let (node, fresh) = self.table.enter(&new, || match &found.stack {
            Some(stack) => Some(Arc::new(Body::Dir(DirBody::new(stack.clone())))),
            None => self.new_file_body(found, graft_file),
        });
        if fresh {
            let claimed = self.claims.claim_lower(&self.table, &node, found);
            claimed.inspect_err(|_| self.forget(node.id, 1))?;
        }
        let shown = || {
            if !fresh && (node.parent != parent || node.name[..] != *entry) {
                self.found_again(&node, parent, entry, found)?;
            }
            self.fixed.note(node.id, found.place.layer, &found.stat);
            self.show_found(&node, found)
        };
        let stat = shown().inspect_err(|_| self.forget(node.id, 1))?;
        Ok((Entry { node: node.id, stat }, fresh))
    }

    /// Returns the attributes of an object that was just found, as the mount shows them.
    fn show_found(&self, node: &Node, found: &Found) -> Result<Stat> {
        if node.body.as_deref().and_then(Body::file).is_none() {
            return Ok(self.layers.show(node, found.stat));
        }
        self.table.with_file(node.id, |held| {
            let state = &held.state;
            let same = held.node.key == self.layers.key_of(found);
            let plain = same && !state.indexed && state.data.is_none();
            if plain && state.life == Life::Linked {
                return Ok(self.layers.show(&held.node, found.stat));
            }
            Ok(self.layers.show(&held.node, self.table.stat_state(&held.node, state)?))
        })
    }

    fn new_file_body(&self, found: &Found, elsewhere: bool) -> Option<Arc<Body>> {
        let aliased = found.place.layer != UPPER && found.stat.nlink > 1;
        if found.data.is_none() && found.indexed.is_none() && !elsewhere && !aliased {
            return None;
        }
        let body = FileBody::default();
        body.with(|state| {
            state.data.clone_from(&found.data);
            if elsewhere || found.indexed.is_some() {
                state.place = Some(found.place.clone());
            }
            if let Some(diff) = found.indexed {
                state.indexed = true;
                state.nlink_diff = diff;
                state.place =
                    self.layers.index_place(&found.place).ok().flatten().or(state.place.take());
            }
        });
        Some(Arc::new(Body::File(body)))
    }

    // A known object was found under another name: a hard link, or a rename outside of this mount.
    fn found_again(&self, node: &Node, parent: NodeId, entry: &[u8], found: &Found) -> Result<()> {
        if node.kind == Kind::Dir {
            return self.table.with_dir(node.id, |node, body| {
                if node.id != NodeId::ROOT {
                    self.table.relocate(node.id, parent, entry);
                }
                // Others may rename directories of grafts.
                if node.key.layer() >= FIRST_GRAFT
                    && !found.place.name.is_empty()
                    && let Some(dir) = body.stack().top()
                {
                    dir.relocate(&found.place.dir, entry);
                }
                Ok(())
            });
        }
        self.table.with_file(node.id, |held| {
            if held.node.parent == parent && held.node.name[..] == *entry {
                return Ok(());
            }
            if held.state.is_lost() {
                // A pin led to it since its known name was removed.
                held.state.place = None;
                held.state.pinned = false;
                self.table.relocate(held.node.id, parent, entry);
            } else if !held.state.misnamed
                && (found.stat.nlink > 1 || found.indexed.is_some())
                && node.key.layer() < FIRST_GRAFT
            {
                held.state.add_alias(parent, entry);
            } else {
                held.state.misnamed = false;
                self.table.relocate(held.node.id, parent, entry);
            }
            Ok(())
        })
    }
}
