//! Data of files: what the kernel does not read and write by itself.
//!
//! A descriptor is opened when it is needed and kept in a bounded cache; one that is for reading
//! only is opened again for writing.

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::types::{Access, Kind, NodeId, Seek};
use crate::union::Union;
use crate::union::api::Kill;
use crate::union::body::{FileState, UPPER};
use crate::union::copyup::Data;
use crate::union::layer::{File, FileRef};
use crate::union::table::Node;

impl Union {
    /// The descriptor of a file, opened if it is not at hand.
    fn file(&self, node: &Node, state: &mut FileState, write: bool) -> Result<FileRef> {
        if let Some((file, writable)) = &state.file
            && (*writable || !write)
        {
            return Ok(Arc::clone(file));
        }
        let place = match &state.data {
            Some(data) if !write => data.clone(),
            _ => self.place(node, Some(state))?,
        };
        let access = if write { Access::Write } else { Access::Read };
        let file = place.dir.open(&place.name, access)?;
        state.file = Some((Arc::clone(&file), write));
        self.note_file(node.id);
        Ok(file)
    }

    /// Gives the file behind a node, open for reading, to `read`.
    ///
    /// # Errors
    /// As open(2), or what `read` answers.
    pub fn read_with<R>(&self, id: NodeId, read: impl FnOnce(&dyn File) -> Result<R>) -> Result<R> {
        read(self.readable(id)?.as_ref())
    }

    /// The file behind a node, open for reading.
    fn readable(&self, id: NodeId) -> Result<FileRef> {
        let node = self.node(id)?;
        let body = self.file_body(id)?;
        let mut state = body.file().ok_or(Errno::ISDIR)?.state.lock();
        self.file(&node, &mut state, false)
    }

    /// The file behind a node in the upper, open for writing.
    fn writable(&self, id: NodeId, kill: Kill) -> Result<FileRef> {
        let node = self.node(id)?;
        let body = self.file_body(id)?;
        let mut state = body.file().ok_or(Errno::ISDIR)?.state.lock();
        if let Some((file, true)) = &state.file
            && kill == Kill::Nothing
            && state.data.is_none()
        {
            return Ok(Arc::clone(file));
        }
        if state.pinned
            && let Some((file, true)) = &state.file
        {
            return Ok(Arc::clone(file));
        }
        let place = self.raise_file(&node, &mut state, Data::Whole)?;
        self.check_writable(&place)?;
        self.clear_privilege(&place, kill)?;
        let node = self.node(id)?;
        self.file(&node, &mut state, true)
    }

    /// Writes at an offset; answers how many bytes.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write(
        &self,
        id: NodeId,
        _fh: u64,
        data: &[u8],
        offset: u64,
        kill_priv: bool,
    ) -> Result<usize> {
        self.writable(id, kill_priv.into())?.write_at(data, offset)
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn fsync(&self, id: NodeId, data_only: bool) -> Result<()> {
        if self.options.volatile {
            return Ok(());
        }
        let node = self.node(id)?;
        let body = self.file_body(id)?;
        let file = {
            let mut state = body.file().ok_or(Errno::ISDIR)?.state.lock();
            let place = self.place(&node, Some(&state))?;
            match (&state.file, place.layer == UPPER || self.graft(place.layer).is_some()) {
                (_, false) => return Ok(()),
                (Some((file, _)), true) if state.data.is_none() => Arc::clone(file),
                (_, true) if state.data.is_some() => place.dir.open(&place.name, Access::Read)?,
                (_, true) => self.file(&node, &mut state, false)?,
            }
        };
        file.sync(data_only)
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// As fallocate(2).
    pub fn fallocate(
        &self,
        id: NodeId,
        mode: u32,
        offset: u64,
        len: u64,
        kill: Kill,
    ) -> Result<()> {
        self.writable(id, kill)?.allocate(mode, offset, len)
    }

    /// Finds the next data or hole.
    ///
    /// # Errors
    /// As lseek(2).
    pub fn lseek(&self, id: NodeId, offset: u64, whence: Seek) -> Result<u64> {
        self.read_with(id, |file| file.seek(offset, whence))
    }

    /// Copies between two open files; answers how many bytes.
    ///
    /// # Errors
    /// As copy_file_range(2).
    pub fn copy_file_range(
        &self,
        from: NodeId,
        offset: u64,
        to: NodeId,
        to_offset: u64,
        len: u64,
        kill: Kill,
    ) -> Result<u64> {
        let target = self.writable(to, kill)?;
        self.readable(from)?.copy_range(offset, target.as_ref(), to_offset, len)
    }

    /// Runs `act` on the descriptor of a file or directory; with `change`, of its upper part.
    pub(super) fn with_descriptor<R>(
        &self,
        id: NodeId,
        change: bool,
        act: impl FnOnce(&dyn File) -> Result<R>,
    ) -> Result<R> {
        let node = self.node(id)?;
        match node.kind {
            Kind::Dir => {
                let stack = match change {
                    true => self.raise_dir(id)?,
                    false => super::dir_of(&node)?.stack(),
                };
                act(stack.top().ok_or(Errno::STALE)?.open_self()?.as_ref())
            }
            Kind::File => {
                let body = self.file_body(id)?;
                let mut state = body.file().ok_or(Errno::ISDIR)?.state.lock();
                let place = match change {
                    true => self.raise_file(&node, &mut state, Data::Whole)?,
                    false => self.place(&node, Some(&state))?,
                };
                if let Some((file, _)) = &state.file
                    && state.pinned
                {
                    return act(file.as_ref());
                }
                act(place.dir.open(&place.name, Access::Read)?.as_ref())
            }
            _ => Err(Error::Rule(Errno::NOTTY)),
        }
    }
}
