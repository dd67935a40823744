//! The locks of a mount: what each protects, in which order they are taken, and the functions that
//! hand them out with the state that they protect, read after the lock was taken.
//!
//! Outermost first:
//!
//! 1. `Union::rename`: one rename of a directory, or between two directories, at a time, so that
//!    no directory changes its ancestors meanwhile (`s_vfs_rename_mutex` of the kernel).
//! 2. `DirBody::entries`: a change of entries excludes lookups and other changes in the directory.
//!    A directory that is removed or replaced is locked too. An ancestor comes first, then the
//!    smaller node number.
//! 3. The state of a file, which is also its copy-up lock and protects its place (parent, name,
//!    key) in the table. Of two files, the smaller node number comes first.
//! 4. `DirBody::change`: as 3, for a directory. Only a rename holds two.
//! 5. `DirBody::times`: a step in the upper part of a directory, and its times before and after.
//!
//! A copy-up takes only 3 to 5: an open file may be copied up while names change. Code that looks
//! up a name without these locks compares `Layers::published` from before and after.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::RwLockReadGuard;
use crate::types::{Kind, NodeId};
use crate::union::body::{Body, DirBody, FileBody, FileState, Io, Life};
use crate::union::parent::Parent;
use crate::union::table::{Node, Table};

/// A file whose state is locked. The node was read under the lock.
pub(super) struct Held<'a> {
    pub(super) node: Node,
    pub(super) state: &'a mut FileState,
}

impl Held<'_> {
    /// Whether this name is the one that leads to the object.
    pub(super) fn is_at(&self, parent: NodeId, entry: &[u8]) -> bool {
        self.node.parent == parent && self.node.name[..] == *entry
    }
}

/// Directories whose entries change.
pub(super) struct Parents<'a> {
    pub(super) from: &'a Parent,
    pub(super) to: &'a Parent,
}

impl FileBody {
    /// Passes a state to `act` that nobody else uses: it is not shared yet, or the union is held
    /// alone.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut FileState) -> R) -> R {
        act(&mut self.state.lock())
    }
}

impl Body {
    /// Whether this is a file state that is the same as a new one.
    pub(super) fn is_idle(&self) -> bool {
        let Some(state) = self.file().and_then(|file| file.state.try_lock()) else { return false };
        state.opens == 0
            && state.io == Io::Idle
            && state.data.is_none()
            && state.place.is_none()
            && state.aliases.is_empty()
            && state.life == Life::Linked
            && !state.indexed
    }
}

impl DirBody {
    /// Keeps the entries of a directory unchanged while names are looked up in it.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.entries.read()
    }

    /// Runs a step that changes entries in the upper part of a directory: meanwhile no copy-up can
    /// restore the former times.
    pub(super) fn step<R>(&self, act: impl FnOnce() -> Result<R>) -> Result<R> {
        let _times = self.times.lock();
        act()
    }
}

impl Parent {
    /// Locks the entries of a directory and gives it to `act`, which may change them.
    ///
    /// # Errors
    /// `ENOENT` for a directory that is removed; errors of `act`.
    pub(super) fn locked<R>(&self, act: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        let _entries = self.body()?.entries.write();
        act(&self.current()?)
    }

    /// Runs a step that changes entries in the upper parts of two directories, which may be one.
    pub(super) fn step_with<R>(&self, other: &Self, act: impl FnOnce() -> Result<R>) -> Result<R> {
        if self.id == other.id {
            return self.body()?.step(act);
        }
        let (first, second) = if self.id.0 < other.id.0 { (self, other) } else { (other, self) };
        let (first, second) = (first.body()?, second.body()?);
        first.step(|| second.step(act))
    }
}

impl Parents<'_> {
    /// Locks the entries of both directories, which may be one, and gives them to `act`.
    ///
    /// # Errors
    /// As [`Parent::locked`].
    pub(super) fn locked<R>(
        &self,
        table: &Table,
        act: impl FnOnce(&Parents<'_>) -> Result<R>,
    ) -> Result<R> {
        let Self { from, to } = *self;
        if from.id == to.id {
            return from.locked(|parent| act(&Parents { from: parent, to: parent }));
        }
        let from_first = table.is_above(from.id, to.id)
            || (!table.is_above(to.id, from.id) && from.id.0 < to.id.0);
        let (first, second) = if from_first { (from, to) } else { (to, from) };
        let _first = first.body()?.entries.write();
        let _second = second.body()?.entries.write();
        act(&Parents { from: &from.current()?, to: &to.current()? })
    }
}

impl Table {
    /// Returns the body of a file, and makes one if there is none.
    fn file_body(&self, id: NodeId) -> Result<Arc<Body>> {
        let fresh = || Arc::new(Body::File(FileBody::default()));
        self.body(id, fresh).ok_or_else(|| Errno::STALE.into())
    }

    /// Locks the state of a file, then reads its node, and passes both to `act`.
    ///
    /// # Errors
    /// `EISDIR`, `ESTALE`, and errors of `act`.
    pub(super) fn with_file<R>(
        &self,
        id: NodeId,
        act: impl FnOnce(&mut Held<'_>) -> Result<R>,
    ) -> Result<R> {
        let body = self.file_body(id)?;
        let mut state = body.file().ok_or(Errno::ISDIR)?.state.lock();
        let node = self.node(id)?;
        act(&mut Held { node, state: &mut state })
    }

    /// [`Table::with_file`] of a file that is not in use now; does nothing with others.
    pub(super) fn try_with_file(&self, id: NodeId, act: impl FnOnce(&mut Held<'_>)) {
        let Some(node) = self.find(id) else { return };
        let Some(body) = node.body.clone() else { return };
        if let Some(file) = body.file()
            && let Some(mut state) = file.state.try_lock()
            && let Some(node) = self.find(id)
        {
            act(&mut Held { node, state: &mut state });
        }
    }

    /// Passes the state of a file that no node refers to any more to `act`.
    pub(super) fn with_forgotten(&self, body: &Body, act: impl FnOnce(&mut FileState)) {
        if let Some(file) = body.file() {
            act(&mut file.state.lock());
        }
    }

    /// [`Table::with_file`] of two different files; either may be missing.
    pub(super) fn with_files<R>(
        &self,
        one: Option<NodeId>,
        two: Option<NodeId>,
        act: impl FnOnce(Option<&mut Held<'_>>, Option<&mut Held<'_>>) -> Result<R>,
    ) -> Result<R> {
        match (one, two) {
            (None, None) => act(None, None),
            (Some(one), None) => self.with_file(one, |held| act(Some(held), None)),
            (None, Some(two)) => self.with_file(two, |held| act(None, Some(held))),
            (Some(one), Some(two)) if one.0 < two.0 => self.with_file(one, |first| {
                self.with_file(two, |second| act(Some(first), Some(second)))
            }),
            (Some(one), Some(two)) => self.with_file(two, |second| {
                self.with_file(one, |first| act(Some(first), Some(second)))
            }),
        }
    }

    /// Passes the node of an object that is not a directory to `act`, which changes nothing, and
    /// its locked state if it is in use. A file that is not in use is read without a lock, and
    /// again with one if it came into use meanwhile.
    ///
    /// # Errors
    /// `EISDIR`, `ESTALE`, and errors of `act`.
    pub(super) fn with_object<R>(
        &self,
        id: NodeId,
        act: impl Fn(&Node, Option<&FileState>) -> Result<R>,
    ) -> Result<R> {
        let node = self.node(id)?;
        if node.body.is_none()
            && node.kind != Kind::Dir
            && let Ok(done) = act(&node, None)
            && self.is_at_rest(&node)
        {
            return Ok(done);
        }
        self.with_file(id, |held| act(&held.node, Some(held.state)))
    }

    /// Locks the place of a directory, then reads its node, and passes both to `act`.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`, and errors of `act`.
    pub(super) fn with_dir<R>(
        &self,
        id: NodeId,
        act: impl FnOnce(&Node, &DirBody) -> Result<R>,
    ) -> Result<R> {
        let body = self.node(id)?.dir_body()?;
        let dir = body.dir().ok_or(Errno::NOTDIR)?;
        let _change = dir.change.lock();
        act(&self.node(id)?, dir)
    }

    /// Locks the places of up to two directories.
    pub(super) fn with_dirs<R>(
        &self,
        one: Option<NodeId>,
        two: Option<NodeId>,
        act: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let first = one.into_iter().chain(two).min_by_key(|id| id.0);
        let second =
            one.into_iter().chain(two).max_by_key(|id| id.0).filter(|id| first != Some(*id));
        let within = || match second {
            Some(id) => self.with_dir(id, |_, _| act()),
            None => act(),
        };
        match first {
            Some(id) => self.with_dir(id, |_, _| within()),
            None => within(),
        }
    }

    /// Locks the entries of a directory that is about to be removed or replaced, below the lock of
    /// its parent.
    pub(super) fn with_victim<R>(
        &self,
        victim: Option<&Node>,
        act: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        match victim {
            Some(node) if node.kind == Kind::Dir => {
                let _entries = node.dir()?.entries.write();
                act()
            }
            _ => act(),
        }
    }

    /// Whether a directory is an ancestor of another, or the other itself.
    pub(super) fn is_above(&self, above: NodeId, below: NodeId) -> bool {
        let mut at = below;
        loop {
            if at == above {
                return true;
            }
            match self.find(at) {
                Some(node) if node.id != NodeId::ROOT => at = node.parent,
                _ => return false,
            }
        }
    }
}
