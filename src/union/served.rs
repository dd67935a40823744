//! Files of grafts: the host, other mounts and other containers change them at the same time.
//!
//! Nothing of them is cached: names and attributes have no lifetime in the kernel, and data
//! bypasses the page cache of the mount, from the registered file (passthrough) or by READ and
//! WRITE. An open file is held by a descriptor, since its name may lead to another object at any
//! time; a file that is not open is reached by the name that the kernel has just looked up.
//!
//! The state of an open file here is separate from that of files of the union: there is neither a
//! copy-up nor a page cache to keep right.

pub(super) mod open_files;

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Access, AttrChange, Kind, NodeId, S_ISGID, S_ISUID, Stat};
use crate::union::Union;
use crate::union::api::{Kill, OpenFlags, OpenMode, Opened};
use crate::union::body::{FIRST_GRAFT, Place};
use crate::union::layer::FileRef;
use crate::union::open::check_fixed;
use crate::union::served::open_files::OpenFile;
use crate::union::table::Node;

/// Set in the handle of a file of a graft.
const FH_SERVED: u64 = 16;
/// Set in the handle of a running program.
const FH_RUNS: u64 = 8;
impl Union {
    /// Whether the mount has grafts, so that others may change what is shown.
    #[must_use]
    pub fn has_grafts(&self) -> bool {
        !self.layers.grafts().is_empty()
    }

    /// Whether an object is in a graft, so that others may change it too.
    #[must_use]
    pub fn is_shared(&self, id: NodeId) -> bool {
        self.has_grafts() && self.table.find(id).is_some_and(|node| node.key.layer() >= FIRST_GRAFT)
    }

    /// Returns a unique number for a handle, if locks are identified by it.
    pub(super) fn handle_number(&self) -> u64 {
        if self.has_grafts() { self.handles.number() } else { 0 }
    }

    fn shared_file(&self, id: NodeId) -> Option<Node> {
        if !self.has_grafts() {
            return None;
        }
        let node = self.table.find(id)?;
        (node.key.layer() >= FIRST_GRAFT && node.kind == Kind::File).then_some(node)
    }

    fn shared_place(&self, node: &Node) -> Result<Place> {
        self.table.with_object(node.id, |node, state| self.table.place(node, state))
    }

    /// Opens a file of a graft; `None` for any other. `made` is the descriptor of a new one.
    ///
    /// # Errors
    /// As open(2); `ESTALE` if the name leads to another file by now.
    pub(super) fn open_served(
        &self,
        id: NodeId,
        flags: OpenFlags,
        made: Option<&FileRef>,
    ) -> Result<Option<Opened>> {
        let Some(node) = self.shared_file(id) else { return Ok(None) };
        let writes = flags.write || flags.truncate;
        let graft = self.layers.graft(node.key.layer()).ok_or(Errno::STALE)?;
        if writes && graft.is_read_only() {
            return Err(Errno::ROFS.into());
        }
        let opened = self.served.with(&self.handles, id, |open| {
            if flags.truncate && !flags.write && open.runs > 0 {
                return Err(Errno::TXTBSY.into());
            }
            let file = self.served_descriptor(&node, open, writes, made)?;
            let stat = file.stat()?;
            if writes {
                check_fixed(&stat, flags)?;
            }
            if flags.truncate {
                if flags.kill_priv {
                    self.layers.clear_privilege(&self.shared_place(&node)?, Kill::Privilege)?;
                }
                file.set_len(0)?;
            }
            // The kernel would write with our rights and keep the privileges that a user's write
            // clears.
            let keeps = flags.write
                && (stat.mode & (S_ISUID | S_ISGID) != 0
                    || (stat.mode & 0o111 != 0
                        && self.has_capability(&self.shared_place(&node)?)?));
            let mode = match keeps {
                true => OpenMode::Direct,
                false => self.served_mode(open, &file),
            };
            open.opens += 1;
            open.runs += u32::from(flags.execute);
            let runs = if flags.execute { FH_RUNS } else { 0 };
            Ok(Opened { fh: FH_SERVED | runs | self.handle_number(), mode })
        })?;
        Ok(Some(opened))
    }

    /// Returns the descriptor of an open file, and opens it (again) if it cannot write as needed.
    fn served_descriptor(
        &self,
        node: &Node,
        open: &mut OpenFile,
        writes: bool,
        made: Option<&FileRef>,
    ) -> Result<FileRef> {
        if let Some((file, writable)) = &open.file
            && (*writable || !writes)
        {
            return Ok(Arc::clone(file));
        }
        let access = if writes { Access::Write } else { Access::Read };
        let (file, writable) = match (made, &open.file) {
            (Some(file), _) => (Arc::clone(file), true),
            (None, Some((file, _))) => (file.again(access)?, writes),
            (None, None) => {
                let place = self.shared_place(node)?;
                match place.dir.open(&place.name, access) {
                    Err(error) if error.is(Errno::NOENT) => return Err(Errno::STALE.into()),
                    file => (file?, writes),
                }
            }
        };
        if self.layers.key(node.key.layer(), &file.stat()?) != node.key {
            return Err(Errno::STALE.into());
        }
        open.file = Some((Arc::clone(&file), writable));
        Ok(file)
    }

    fn served_mode(&self, open: &mut OpenFile, file: &FileRef) -> OpenMode {
        if let Some(backing_id) = open.backing_id {
            return OpenMode::Passthrough { backing_id };
        }
        let Some(kernel) = self.handles.passthrough() else { return OpenMode::Direct };
        // A descriptor for writing would prevent others from running the file.
        let registered = file.again(Access::Path).and_then(|file| kernel.register(file.as_ref()));
        match registered {
            Ok(backing_id) => {
                open.backing_id = Some(backing_id);
                self.handles.count_passthrough();
                OpenMode::Passthrough { backing_id }
            }
            Err(error) => {
                tracing::debug!(%error, "a file of a graft is served by the daemon");
                OpenMode::Direct
            }
        }
    }

    /// Closes a handle, if it is one of a graft.
    pub(super) fn release_served(&self, id: NodeId, fh: u64) -> bool {
        if fh & FH_SERVED == 0 {
            return false;
        }
        let released = self.served.with(&self.handles, id, |open| {
            open.opens = open.opens.saturating_sub(1);
            if fh & FH_RUNS != 0 {
                open.runs = open.runs.saturating_sub(1);
            }
            Ok(())
        });
        released.is_ok()
    }

    /// Returns the descriptor of an open file of a graft, if it is one and can be used so.
    pub(super) fn served_file(&self, id: NodeId, write: bool) -> Option<FileRef> {
        if !self.has_grafts() {
            return None;
        }
        let open = self.served.find(id)?;
        let mut open = open.lock();
        let (file, writable) = open.file.as_ref()?;
        if *writable || !write {
            return Some(Arc::clone(file));
        }
        let file = file.again(Access::Write).ok()?;
        open.file = Some((Arc::clone(&file), true));
        Some(file)
    }

    /// Lets others run a file of a graft that was just written: closes the descriptor for writing
    /// until the next write.
    pub fn flush(&self, id: NodeId) {
        let Some(open) = self.served.find(id) else { return };
        let mut open = open.lock();
        if let Some((file, true)) = &open.file
            && let Ok(file) = file.again(Access::Read)
        {
            open.file = Some((file, false));
        }
    }

    /// [`Union::served_file`] for a write, which clears privileges that the file must not keep.
    pub(super) fn served_writable(&self, id: NodeId, kill: Kill) -> Result<Option<FileRef>> {
        let Some(file) = self.served_file(id, true) else { return Ok(None) };
        if kill != Kill::Nothing
            && let Some(node) = self.shared_file(id)
        {
            self.layers.clear_privilege(&self.shared_place(&node)?, kill)?;
        }
        Ok(Some(file))
    }

    /// Returns the file of the host on which locks of an open file are taken; `None` for a file of
    /// the union.
    #[must_use]
    pub fn lock_file(&self, id: NodeId) -> Option<FileRef> {
        self.served_file(id, false)
    }

    /// Returns the attributes of an open file of a graft.
    pub(super) fn served_stat(&self, id: NodeId) -> Result<Option<Stat>> {
        self.served_file(id, false).map(|file| file.stat()).transpose()
    }

    /// Changes attributes of an open file of a graft; returns whether it is one.
    pub(super) fn served_change(
        &self,
        id: NodeId,
        change: &AttrChange,
        kill_priv: bool,
    ) -> Result<bool> {
        let Some(node) = self.shared_file(id) else { return Ok(false) };
        let Some(file) = self.served_file(id, false) else { return Ok(false) };
        if self.layers.graft(node.key.layer()).is_none_or(|graft| graft.is_read_only()) {
            return Err(Errno::ROFS.into());
        }
        if kill_priv && change.size.is_some() {
            self.layers.clear_privilege(&self.shared_place(&node)?, Kill::Privilege)?;
        }
        let file = match change.size {
            Some(_) => self.served_file(id, true).ok_or(Errno::ACCESS)?,
            None => file,
        };
        file.set_attr(change)?;
        Ok(true)
    }

    /// Appends to an open file of a graft, at its current end.
    ///
    /// # Errors
    /// As write(2).
    pub fn append(&self, id: NodeId, data: &[u8], kill_priv: bool) -> Result<Option<usize>> {
        let Some(file) = self.served_writable(id, kill_priv.into())? else { return Ok(None) };
        file.append(data).map(Some)
    }
}
