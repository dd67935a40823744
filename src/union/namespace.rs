//! Additions to one directory: new objects and links.
//!
//! An object that replaces a whiteout, and every directory that must hide the layers below, is
//! prepared in the work directory and moved into place in one rename.

use crate::error::{Errno, Result};
use crate::types::{Kind, MODE_MASK, NodeId, Owner, RenameFlags, Stat, name};
use crate::union::api::{Caller, Entry};
use crate::union::body::{FIRST_GRAFT, FileState, Life, Place, Stack};
use crate::union::layer::{DirRef, FileRef};
use crate::union::layers::found::Found;
use crate::union::lock::Held;
use crate::union::mark;
use crate::union::parent::Parent;
use crate::union::{Union, check_name};

/// The object to make.
pub(super) enum Make<'a> {
    Dir { mode: u32 },
    Special { mode: u32, rdev: u64 },
    Symlink { target: &'a [u8] },
    File { mode: u32 },
}

impl FileState {
    /// Notes another name.
    pub(super) fn add_alias(&mut self, parent: NodeId, entry: &[u8]) {
        let known = self.aliases.iter().any(|(id, name)| *id == parent && name[..] == *entry);
        if !known && self.aliases.len() < 64 {
            self.aliases.push((parent, name(entry)));
        }
    }

    pub(super) fn drop_alias(&mut self, parent: NodeId, entry: &[u8]) {
        self.aliases.retain(|(id, name)| *id != parent || name[..] != *entry);
    }
}

impl Union {
    /// Returns a directory with its upper part, ready to be changed.
    pub(super) fn parent(&self, id: NodeId) -> Result<Parent> {
        let stack = self.copy_up_dir(id)?;
        let body = self.table.node(id)?.dir_body()?;
        let dir = stack.upper.clone().ok_or(Errno::STALE)?;
        Ok(Parent { id, body, stack, dir })
    }

    /// Copies a directory up if necessary, locks its entries, and passes it to `act`, which may
    /// change them.
    ///
    /// # Errors
    /// As the copy-up; `ENOENT` for a directory that is removed; errors of `act`.
    pub(super) fn with_parent<R>(
        &self,
        id: NodeId,
        act: impl FnOnce(&Parent) -> Result<R>,
    ) -> Result<R> {
        self.parent(id)?.locked(act)
    }

    /// Makes a FIFO, socket, device or regular file.
    ///
    /// # Errors
    /// As mknod(2).
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: NodeId,
        entry: &[u8],
        mode: u32,
        rdev: u64,
    ) -> Result<Entry> {
        self.with_parent(parent, |parent| {
            self.make(caller, parent, entry, &Make::Special { mode, rdev })?;
            self.made(parent, entry)
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn mkdir(&self, caller: &Caller, parent: NodeId, entry: &[u8], mode: u32) -> Result<Entry> {
        self.with_parent(parent, |parent| {
            self.make(caller, parent, entry, &Make::Dir { mode })?;
            self.made(parent, entry)
        })
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As symlink(2).
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: NodeId,
        entry: &[u8],
        target: &[u8],
    ) -> Result<Entry> {
        self.with_parent(parent, |parent| {
            self.make(caller, parent, entry, &Make::Symlink { target })?;
            self.made(parent, entry)
        })
    }

    /// Enters an object that was just made: only its attributes are read, since no layer below
    /// shows anything under its name.
    pub(super) fn made(&self, parent: &Parent, entry: &[u8]) -> Result<Entry> {
        let stat = parent.dir.stat(Some(entry))?;
        self.made_with(parent, entry, stat)
    }

    /// [`Union::made`] with the attributes at hand.
    pub(super) fn made_with(&self, parent: &Parent, entry: &[u8], stat: Stat) -> Result<Entry> {
        let stack = (stat.kind() == Kind::Dir).then(|| Stack {
            upper: Some(parent.dir.dir_known(entry, &stat)),
            graft: parent.stack.graft,
            ..Stack::default()
        });
        let place = Place::new(parent.layer(), &parent.dir, entry);
        let ino = self.layers.show_ino(&stat);
        let found = Found::alone(stat, place, ino, stack);
        self.enter(parent.id, entry, &found).map(|(entry, _)| entry)
    }

    /// Makes an object; a regular file is opened.
    pub(super) fn make(
        &self,
        caller: &Caller,
        parent: &Parent,
        entry: &[u8],
        what: &Make<'_>,
    ) -> Result<Option<FileRef>> {
        check_name(entry)?;
        if self.layers.is_graft_place(parent.id, entry) {
            return Err(Errno::EXIST.into());
        }
        self.fixed.may_change(parent.id, true)?;
        let layer = parent.layer();
        let owner = self.layers.owner(caller, layer)?;
        if parent.stack.graft.is_some() {
            let body = parent.body()?;
            let file =
                body.step(|| self.make_in(caller, parent, &parent.dir, entry, what, owner))?;
            body.changed();
            return Ok(file);
        }
        self.layers.refuse_aufs_name(&parent.dir, entry)?;
        let plain = needs_plain_mark(entry, what);
        let hides = self.layers.upper_hides(&parent.stack, entry)?;
        if !parent.stack.has_lower() && !hides && !plain {
            // No layer is below: the name is free unless the upper itself refuses it.
            let body = parent.body()?;
            match body.step(|| self.make_in(caller, parent, &parent.dir, entry, what, owner)) {
                // There may be a whiteout.
                Err(error) if error.is(Errno::EXIST) => {}
                made => return made.inspect(|_| body.changed()),
            }
        }
        let covers = self.layers.is_occupied(&parent.dir, entry)?;
        let hidden = !covers && hides;
        // Without an entry in the upper, the layers below decide.
        let seen = if covers || hidden {
            self.layers.resolve(&parent.stack, entry)?
        } else {
            self.layers.resolve_lower(&parent.stack.lowers, entry)?
        };
        if seen.is_some() {
            return Err(Errno::EXIST.into());
        }
        let opaque = matches!(what, Make::Dir { .. })
            && (covers
                || hidden
                || (self.layers.writes_aufs_whiteouts() && parent.stack.has_lower()));
        let file = parent.body()?.step(|| {
            if covers || opaque || plain {
                return self.make_over(caller, parent, entry, what, owner);
            }
            self.make_in(caller, parent, &parent.dir, entry, what, owner)
        })?;
        parent.body()?.changed();
        Ok(file)
    }

    // Made in the work directory first, then moved over the whiteout in its place.
    fn make_over(
        &self,
        caller: &Caller,
        parent: &Parent,
        entry: &[u8],
        what: &Make<'_>,
        owner: Owner,
    ) -> Result<Option<FileRef>> {
        let (stage, staged) = self.layers.stage_for(parent.body()?, &parent.dir)?;
        let temporary = self.layers.unique_name();
        let run = || -> Result<Option<FileRef>> {
            let file = self.make_in(caller, parent, &stage, &temporary, what, owner)?;
            if needs_plain_mark(entry, what) {
                self.layers.set_plain(&stage, &temporary)?;
            }
            let is_dir = matches!(what, Make::Dir { .. });
            if is_dir {
                self.layers.set_opaque(&stage, Some(&temporary))?;
            }
            let exchange = is_dir && self.layers.is_occupied(&parent.dir, entry)?;
            let flags = RenameFlags { exchange, ..RenameFlags::default() };
            stage.rename(&temporary, parent.dir.as_ref(), entry, flags)?;
            if exchange {
                stage.unlink(&temporary)?;
            }
            Ok(file)
        };
        let made = run();
        if made.is_err() && self.layers.is_occupied(&stage, &temporary)? {
            match what {
                Make::Dir { .. } => self.remove_staged(&stage, &temporary)?,
                _ => stage.unlink(&temporary)?,
            }
        }
        self.layers.unstage(staged)?;
        made
    }

    fn remove_staged(&self, stage: &DirRef, temporary: &[u8]) -> Result<()> {
        super::empty_dir(&stage.dir(temporary))?;
        stage.rmdir(temporary)
    }

    fn make_in(
        &self,
        caller: &Caller,
        parent: &Parent,
        dir: &DirRef,
        entry: &[u8],
        what: &Make<'_>,
        owner: Owner,
    ) -> Result<Option<FileRef>> {
        let masked = |mode: u32| -> Result<u32> {
            if self.layers.has_default_acl(parent.body()?, &parent.dir)? {
                Ok(mode)
            } else {
                Ok(mode & !(caller.umask & 0o777))
            }
        };
        match what {
            Make::Dir { mode } => dir.mkdir(entry, masked(*mode)? & MODE_MASK, owner)?,
            Make::Special { mode, rdev } => dir.mknod(entry, masked(*mode)?, *rdev, owner)?,
            Make::Symlink { target } => dir.symlink(entry, target, owner)?,
            Make::File { mode } => {
                return dir.create(entry, masked(*mode)? & MODE_MASK, owner).map(Some);
            }
        }
        Ok(None)
    }

    /// Gives an object one more name.
    ///
    /// # Errors
    /// As link(2); `EXDEV` between a graft and the union.
    pub fn link(&self, id: NodeId, parent: NodeId, entry: &[u8]) -> Result<Entry> {
        check_name(entry)?;
        self.fixed.may_change(parent, true)?;
        self.fixed.may_change(id, false)?;
        self.with_parent(parent, |parent| {
            self.check_link(id, parent, entry)?;
            let (ino, linked) = self.table.with_file(id, |held| {
                self.link_held(held, parent, entry)?;
                Ok((held.node.ino, parent.dir.stat(Some(entry))?))
            })?;
            parent.body()?.changed();
            // Only an entry that shows a number other than its own has one stored.
            if ino == self.layers.show_ino(&linked) { Ok(()) } else { self.set_impure_for(parent) }
        })?;
        self.entry_again(id)
    }

    fn check_link(&self, id: NodeId, parent: &Parent, entry: &[u8]) -> Result<()> {
        let node = self.table.node(id)?;
        let source_layer = node.key.layer();
        if source_layer.max(FIRST_GRAFT - 1) != parent.layer().max(FIRST_GRAFT - 1) {
            return Err(Errno::XDEV.into());
        }
        if parent.stack.graft.is_none() && self.layers.resolve(&parent.stack, entry)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        if node.kind == Kind::Dir {
            return Err(Errno::PERM.into());
        }
        if parent.stack.graft.is_none() {
            self.layers.refuse_aufs_name(&parent.dir, entry)?;
        }
        Ok(())
    }

    fn link_held(&self, held: &mut Held<'_>, parent: &Parent, entry: &[u8]) -> Result<()> {
        if held.state.life.is_nameless() && held.state.life != Life::Unnamed {
            return Err(Errno::NOENT.into());
        }
        let place = self.copy_up_movable(held, false)?;
        let marked = parent.stack.graft.is_none() && mark::is_aufs_name(entry);
        if marked && held.node.kind == Kind::File {
            self.layers.set_plain(&place.dir, &place.name)?;
        }
        parent.body()?.step(|| self.link_place(&place, parent, entry))?;
        if held.state.life != Life::Unnamed {
            held.state.add_alias(parent.id, entry);
            return Ok(());
        }
        held.state.life = Life::Linked;
        held.state.place = None;
        self.table.relocate(held.node.id, parent.id, entry);
        self.table.replace_key(held.node.id, held.node.key);
        place.dir.unlink(&place.name)
    }

    pub(super) fn set_impure_for(&self, parent: &Parent) -> Result<()> {
        if parent.stack.graft.is_some() {
            return Ok(());
        }
        self.layers.set_impure(parent.body()?, &parent.dir)
    }

    fn link_place(&self, place: &Place, parent: &Parent, entry: &[u8]) -> Result<()> {
        if parent.stack.graft.is_some() || !self.layers.is_occupied(&parent.dir, entry)? {
            return place.dir.link(&place.name, parent.dir.as_ref(), entry);
        }
        let work = self.layers.work()?;
        let temporary = self.layers.unique_name();
        place.dir.link(&place.name, work.as_ref(), &temporary)?;
        let moved = work.rename(&temporary, parent.dir.as_ref(), entry, RenameFlags::default());
        if moved.is_err() {
            work.unlink(&temporary)?;
        }
        moved
    }
}

// Whether an object would be read as a whiteout if the upper became a layer.
fn needs_plain_mark(entry: &[u8], what: &Make<'_>) -> bool {
    match what {
        Make::Special { mode, rdev } => {
            let kind = Kind::from_mode(*mode);
            (kind == Kind::Char && *rdev == 0) || (kind == Kind::File && mark::is_aufs_name(entry))
        }
        Make::File { .. } => mark::is_aufs_name(entry),
        Make::Dir { .. } | Make::Symlink { .. } => false,
    }
}
