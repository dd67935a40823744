//! Open files: how each is served, and the state behind it.
//!
//! There is no table of handles: a handle is a few bits, and the state is that of the inode. The
//! kernel allows one way per inode at a time, and with passthrough one backing file
//! (`fs/fuse/iomode.c`):
//!
//! | state | next open | result |
//! | --- | --- | --- |
//! | idle | small or privileged file | cached |
//! | idle | otherwise, if the kernel grants it | passthrough |
//! | cached | any | cached |
//! | passthrough, same backing file | any | passthrough, same id |
//! | passthrough, other backing file after a copy-up | any | `ESTALE` once; then a new node |
//!
//! A file that loses its last name lives on while the kernel knows it, since it may be about to be
//! opened: parked in the work directory while it is open, otherwise behind a pin.

use std::cell::RefCell;
use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Access, Kind, NodeId, S_ISGID, S_ISUID, Stat};
use crate::union::api::{Caller, Entry, Kill, OpenFlags, OpenMode, Opened};
use crate::union::body::{Body, FIRST_GRAFT, FileBody, FileState, Io, Life, Place, UPPER};
use crate::union::handles::PASSTHROUGH_MIN;
use crate::union::layer::FileRef;
use crate::union::layers::stage::Data;
use crate::union::lock::Held;
use crate::union::namespace::Make;
use crate::union::table::{Node, Pages};
use crate::union::{Union, check_name};

/// Handle of a file served through the page cache.
const FH_CACHED: u64 = 1;
/// Handle of a file that the kernel serves by itself.
const FH_PASSTHROUGH: u64 = 2;
/// Set in a handle through which the kernel may write by itself.
const FH_WRITES: u64 = 4;
/// Set in the handle of a running program.
const FH_RUNS: u64 = 8;

impl Union {
    /// Opens a file.
    ///
    /// # Errors
    /// As open(2); `ESTALE` once while a reader holds the lower file by passthrough.
    pub fn open(&self, id: NodeId, flags: OpenFlags) -> Result<Opened> {
        self.handles.count_open();
        if let Some(opened) = self.open_served(id, flags, None)? {
            return Ok(opened);
        }
        if flags.write || flags.truncate {
            self.fixed.may_change(id, flags.append && !flags.truncate)?;
        }
        self.table.with_file(id, |held| {
            if matches!(held.state.life, Life::Gone(_) | Life::Detached | Life::Stale) {
                return Err(Errno::STALE.into());
            }
            // The kernel has refused a writer by itself; it would refuse a reader only after this
            // request.
            if flags.truncate && !flags.write && held.state.runs > 0 {
                return Err(Errno::TXTBSY.into());
            }
            if flags.truncate && self.is_read_below(held) {
                // This open fails and must not truncate: the kernel repeats it on the copy.
                self.copy_up_file(held, Data::Whole)?;
                self.detach(held)?;
                return Err(Errno::STALE.into());
            }
            if flags.write || flags.truncate {
                let data = if flags.truncate { Data::Dropped } else { Data::Whole };
                let place = self.copy_up_file(held, data)?;
                self.layers.check_writable(place.layer)?;
                check_fixed(&place.stat()?, flags)?;
                if flags.truncate {
                    self.truncate(&place, held.state, flags.kill_priv)?;
                }
            }
            let opened = self.start_io(held, flags)?;
            Ok(self.count_open(held.state, opened, flags))
        })
    }

    // Whether the kernel serves readers from a lower layer, so that a copy-up separates them from
    // it.
    fn is_read_below(&self, held: &Held<'_>) -> bool {
        let Io::Passthrough { layer, .. } = held.state.io else { return false };
        let lower = layer != UPPER && layer < FIRST_GRAFT;
        lower && held.state.opens > 0 && !self.is_read_only()
    }

    fn count_open(&self, state: &mut FileState, mut opened: Opened, flags: OpenFlags) -> Opened {
        state.opens += 1;
        if flags.execute {
            state.runs += 1;
            opened.fh |= FH_RUNS;
        }
        if flags.write && opened.fh == FH_PASSTHROUGH {
            state.writers += 1;
            self.handles.add_writer();
            opened.fh |= FH_WRITES;
        }
        opened.fh |= self.handle_number();
        opened
    }

    /// Whether a file lost one of its names a moment ago: see `unlinked.rs`.
    #[must_use]
    pub fn lost_name(&self, id: NodeId) -> bool {
        self.handles.lost_name(id)
    }

    /// Whether the kernel writes a file by itself now, perhaps through a shared mapping, so that
    /// its attributes may change at any time.
    #[must_use]
    pub fn is_live(&self, id: NodeId) -> bool {
        if !self.handles.has_writers() {
            return false;
        }
        let writes =
            |_: &Node, state: Option<&FileState>| Ok(state.is_some_and(|state| state.writers > 0));
        self.table.with_object(id, writes).unwrap_or(false)
    }

    fn truncate(&self, place: &Place, state: &mut FileState, kill_priv: bool) -> Result<()> {
        if kill_priv {
            self.layers.clear_privilege(place, Kill::Privilege)?;
        }
        let size = crate::types::AttrChange { size: Some(0), ..Default::default() };
        place.dir.set_attr(Some(&place.name), &size)?;
        state.data = None;
        Ok(())
    }

    /// Decides how a newly opened file is served.
    fn start_io(&self, held: &mut Held<'_>, flags: OpenFlags) -> Result<Opened> {
        let place = match &held.state.data {
            Some(data) => data.clone(),
            None => self.table.place(&held.node, Some(held.state))?,
        };
        let node = &held.node;
        match held.state.io {
            Io::Passthrough { layer, .. } if layer != place.layer => {
                if held.state.opens > 0 {
                    self.detach(held)?;
                    return Err(Errno::STALE.into());
                }
                self.handles.release_id(held.state);
            }
            Io::Passthrough { id, .. }
                if held.state.opens > 0 || self.prefers(node, &place, flags)? =>
            {
                self.table.set_pages(node.id, Pages::Stale);
                return Ok(self.opened_passthrough(id));
            }
            Io::Passthrough { .. } => self.handles.release_id(held.state),
            Io::Cached if held.state.opens > 0 => return Ok(self.opened_cached(node)),
            Io::Cached | Io::Idle => {}
        }
        if held.state.life == Life::Linked
            && self.prefers(node, &place, flags)?
            && let Some(id) = self.handles.register(&place)?
        {
            held.state.io = Io::Passthrough { id, layer: place.layer };
            self.table.set_pages(node.id, Pages::Stale);
            return Ok(self.opened_passthrough(id));
        }
        if node.small && node.pages == Pages::None && place.layer != UPPER && !flags.write {
            self.store_pages(node.id, &place)?;
        }
        held.state.io = Io::Cached;
        Ok(self.opened_cached(node))
    }

    // Puts a small file into the page cache as a whole, which saves its first READ. No process
    // reads it now: the file has no handle, and gets none while its lock is held.
    fn store_pages(&self, id: NodeId, place: &Place) -> Result<()> {
        crate::sync::thread_local! {
            static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(kernel) = self.handles.kernel() else { return Ok(()) };
        let file = place.dir.open(&place.name, Access::Read)?;
        let store = |data: &[u8]| {
            if !data.is_empty()
                && data.len() < PASSTHROUGH_MIN as usize
                && let Err(error) = kernel.store(id, data)
            {
                tracing::debug!(%error, "the page cache takes no data");
            }
        };
        let mut one = |parts: &[&[u8]]| {
            if let [data] = parts {
                store(data);
            }
        };
        if file.read_shared(PASSTHROUGH_MIN as usize, 0, &mut one)? {
            return Ok(());
        }
        DATA.with(|data| {
            let data = &mut *data.borrow_mut();
            data.resize(PASSTHROUGH_MIN as usize, 0);
            let len = file.read_at(data, 0)?;
            store(data.get(..len).unwrap_or_default());
            Ok(())
        })
    }

    fn opened_passthrough(&self, backing_id: u32) -> Opened {
        self.handles.count_passthrough();
        Opened { fh: FH_PASSTHROUGH, mode: OpenMode::Passthrough { backing_id } }
    }

    fn opened_cached(&self, node: &Node) -> Opened {
        let keep_cache = node.pages != Pages::Stale;
        if node.pages != Pages::Valid {
            self.table.set_pages(node.id, Pages::Valid);
        }
        Opened { fh: FH_CACHED, mode: OpenMode::Cached { keep_cache } }
    }

    /// Whether passthrough is better for a file that is opened with these flags.
    fn prefers(&self, node: &Node, place: &Place, flags: OpenFlags) -> Result<bool> {
        if !self.may_pass(place.layer) || self.handles.is_passthrough_off() {
            return Ok(false);
        }
        if node.small && place.layer != UPPER && !flags.write {
            return Ok(false);
        }
        let stat = place.stat()?;
        if stat.kind() != Kind::File {
            return Ok(false);
        }
        if flags.write {
            // The kernel would write with our rights and keep the privileges that a user's write
            // clears.
            let privileged = stat.mode & (S_ISUID | S_ISGID) != 0
                || (stat.mode & 0o111 != 0 && self.has_capability(place)?);
            return Ok(!privileged);
        }
        // A read from the page cache would not change the access time.
        let strict = self.layers.options().strict_atime && place.layer == UPPER;
        Ok(strict || stat.size >= PASSTHROUGH_MIN)
    }

    /// Whether the kernel may serve files of a layer by itself. One that it writes to could not
    /// become part of a layer.
    fn may_pass(&self, layer: u16) -> bool {
        !self.layers.options().freezes || layer >= FIRST_GRAFT
    }

    pub(super) fn has_capability(&self, place: &Place) -> Result<bool> {
        Ok(place.dir.xattr(Some(&place.name), b"security.capability")?.is_some())
    }

    // The path leads to a new node from now on; processes that have the file open keep this one,
    // and a pin leads it to the object that both share.
    fn detach(&self, held: &mut Held<'_>) -> Result<()> {
        if held.state.life != Life::Linked {
            return Ok(());
        }
        self.table.pin(held)?;
        held.state.life = Life::Detached;
        held.state.aliases.clear();
        self.table.clear_key(held.node.id);
        self.handles.changed(held.node.id);
        Ok(())
    }

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// As open(2) with `O_CREAT | O_EXCL`.
    pub fn create(
        &self,
        caller: &Caller,
        parent: NodeId,
        entry: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        check_name(entry)?;
        self.with_parent(parent, |parent| {
            let made = self.make(caller, parent, entry, &Make::File { mode })?;
            let entry = match &made {
                Some(file) => {
                    let stat = parent.dir.stat_new(entry, file)?;
                    self.made_with(parent, entry, stat)?
                }
                None => self.made(parent, entry)?,
            };
            self.open_new(entry, made, flags)
        })
    }

    fn open_new(
        &self,
        entry: Entry,
        made: Option<FileRef>,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        self.handles.count_open();
        let served = self.open_served(entry.node, flags, made.as_ref());
        if let Some(opened) = served.inspect_err(|_| self.forget(entry.node, 1))? {
            return Ok((entry, opened));
        }
        let opened = self.table.with_file(entry.node, |held| {
            let opened = match made {
                Some(made) if flags.write && held.state.io == Io::Idle => {
                    self.start_new(held, made)
                }
                _ => self.start_io(held, flags)?,
            };
            Ok(self.count_open(held.state, opened, flags))
        });
        let opened = opened.inspect_err(|_| self.forget(entry.node, 1))?;
        Ok((entry, opened))
    }

    // A file just made has no reader and no privilege, and its descriptor is open already.
    fn start_new(&self, held: &mut Held<'_>, made: FileRef) -> Opened {
        let passes = self.may_pass(held.node.key.layer());
        if let Some(id) = passes.then(|| self.handles.register_open(made.as_ref())).flatten() {
            held.state.io = Io::Passthrough { id, layer: held.node.key.layer() };
            return self.opened_passthrough(id);
        }
        held.state.io = Io::Cached;
        held.state.file = Some((made, true));
        self.handles.note_file(&self.table, held.node.id);
        self.opened_cached(&held.node)
    }

    /// Makes a file without a name.
    ///
    /// # Errors
    /// As open(2) with `O_TMPFILE`.
    pub fn tmpfile(
        &self,
        caller: &Caller,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let parent = self.parent(parent)?;
        if parent.stack.graft.is_some() {
            return Err(Errno::OPNOTSUPP.into());
        }
        let owner = self.layers.owner(caller, UPPER)?;
        let default_acl = self.layers.has_default_acl(parent.body()?, &parent.dir)?;
        let mode = if default_acl { mode } else { mode & !(caller.umask & 0o777) };
        let (stage, staged) = self.layers.stage_for(parent.body()?, &parent.dir)?;
        let name = self.layers.unique_name();
        let orphans = self.layers.orphans()?;
        let run = || -> Result<FileRef> {
            let made = stage.create(&name, mode & crate::types::MODE_MASK, owner)?;
            stage.rename(&name, orphans.as_ref(), &name, Default::default())?;
            Ok(made)
        };
        let made = run();
        self.layers.unstage(staged)?;
        let made = made?;
        let place = Place { layer: UPPER, dir: Arc::clone(orphans), name: name.clone() };
        let stat = Stat { nlink: 0, ..place.stat()? };
        let new = crate::union::table::NewNode {
            parent: parent.id,
            name,
            key: self.layers.key(UPPER, &stat),
            ino: self.layers.show_ino(&stat),
            kind: Kind::File,
            small: false,
        };
        let (node, _) = self.table.enter(&new, || {
            let body = FileBody::default();
            body.with(|state| {
                state.place = Some(place.clone());
                state.life = Life::Unnamed;
            });
            Some(Arc::new(Body::File(body)))
        });
        // No lookup leads to it, and its number is free after the kernel forgets it.
        self.table.clear_key(node.id);
        let entry = Entry { node: node.id, stat: self.layers.show(&node, stat) };
        self.open_new(entry, Some(made), flags)
    }

    /// Closes a handle.
    pub fn release(&self, id: NodeId, fh: u64) {
        if self.release_served(id, fh) {
            return;
        }
        let closed = self.table.with_file(id, |held| {
            let state = &mut *held.state;
            state.opens = state.opens.saturating_sub(1);
            if fh & FH_WRITES != 0 && state.writers > 0 {
                state.writers -= 1;
                self.handles.drop_writer();
            }
            if fh & FH_RUNS != 0 {
                state.runs = state.runs.saturating_sub(1);
            }
            if state.opens > 0 {
                return Ok(None);
            }
            match state.io {
                Io::Passthrough { .. } if state.life == Life::Linked => return Ok(Some(true)),
                Io::Passthrough { .. } => self.handles.release_id(state),
                Io::Cached | Io::Idle => state.io = Io::Idle,
            }
            if state.life != Life::Linked {
                state.file = None;
            }
            if state.pinned {
                self.handles.note_pin(&self.table, id);
            }
            Ok(Some(false))
        });
        match closed {
            Ok(Some(true)) => self.handles.note_id(&self.table, id),
            Ok(Some(false)) => self.table.drop_body(id, Body::is_idle),
            // The handle is not the last one, or its node is unknown: nothing is to be released.
            Ok(None) | Err(_) => {}
        }
    }
}

// The kernel opens a registered file without checking what its inode allows (`backing_file_open()`
// in fs/backing-file.c), so `may_open()` is repeated here.
pub(super) fn check_fixed(stat: &Stat, flags: OpenFlags) -> Result<()> {
    let grows_only = flags.append && !flags.truncate;
    if stat.immutable || (stat.append_only && !grows_only) {
        return Err(Errno::PERM.into());
    }
    Ok(())
}
