//! Data of files that the kernel does not read or write by itself.
//!
//! A descriptor is opened when it is needed and kept in a bounded cache; a descriptor for reading
//! only is opened again for writing.

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::types::{Access, Kind, NodeId, Seek};
use crate::union::Union;
use crate::union::api::Kill;
use crate::union::body::UPPER;
use crate::union::layer::{File, FileRef};
use crate::union::layers::stage::Data;
use crate::union::lock::Held;

impl Union {
    /// Returns the descriptor of a file, and opens it if it is not kept.
    fn file(&self, held: &mut Held<'_>, write: bool) -> Result<FileRef> {
        if let Some((file, writable)) = &held.state.file
            && (*writable || !write)
        {
            return Ok(Arc::clone(file));
        }
        let place = match &held.state.data {
            Some(data) if !write => data.clone(),
            _ => self.table.place(&held.node, Some(held.state))?,
        };
        let access = if write { Access::Write } else { Access::Read };
        let file = place.dir.open(&place.name, access)?;
        held.state.file = Some((Arc::clone(&file), write));
        self.handles.note_file(&self.table, held.node.id);
        Ok(file)
    }

    /// Passes the file behind a node, open for reading, to `read`.
    ///
    /// # Errors
    /// As open(2), and the errors of `read`.
    pub fn read_with<R>(&self, id: NodeId, read: impl FnOnce(&dyn File) -> Result<R>) -> Result<R> {
        read(self.readable(id)?.as_ref())
    }

    /// Returns the file behind a node, open for reading.
    fn readable(&self, id: NodeId) -> Result<FileRef> {
        if let Some(file) = self.served_file(id, false) {
            return Ok(file);
        }
        self.table.with_file(id, |held| self.file(held, false))
    }

    /// Returns the file behind a node in the upper, open for writing.
    fn writable(&self, id: NodeId, kill: Kill) -> Result<FileRef> {
        if let Some(file) = self.served_writable(id, kill)? {
            return Ok(file);
        }
        self.table.with_file(id, |held| {
            if let Some((file, true)) = &held.state.file
                && kill == Kill::Nothing
                && held.state.data.is_none()
            {
                return Ok(Arc::clone(file));
            }
            let place = self.copy_up_file(held, Data::Whole)?;
            self.layers.check_writable(place.layer)?;
            self.layers.clear_privilege(&place, kill)?;
            self.file(held, true)
        })
    }

    /// Writes at an offset and returns the number of bytes.
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
        if let Some(file) = self.served_file(id, false) {
            return file.sync(data_only);
        }
        if self.layers.options().volatile {
            return Ok(());
        }
        let file = self.table.with_file(id, |held| {
            let place = self.table.place(&held.node, Some(held.state))?;
            let ours = place.layer == UPPER || self.layers.graft(place.layer).is_some();
            match (&held.state.file, &held.state.data) {
                _ if !ours => Ok(None),
                (Some((file, _)), None) => Ok(Some(Arc::clone(file))),
                (_, Some(_)) => place.dir.open(&place.name, Access::Read).map(Some),
                (None, None) => self.file(held, false).map(Some),
            }
        })?;
        file.map_or(Ok(()), |file| file.sync(data_only))
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

    /// Copies between two open files and returns the number of bytes.
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
        match self.table.node(id)?.kind {
            Kind::Dir => {
                let stack = match change {
                    true => self.copy_up_dir(id)?,
                    false => self.table.node(id)?.dir()?.stack(),
                };
                act(stack.top().ok_or(Errno::STALE)?.open_self()?.as_ref())
            }
            Kind::File => self.table.with_file(id, |held| {
                let place = match change {
                    true => self.copy_up_file(held, Data::Whole)?,
                    false => self.table.place(&held.node, Some(held.state))?,
                };
                act(place.dir.open(&place.name, Access::Read)?.as_ref())
            }),
            _ => Err(Error::Rule(Errno::NOTTY)),
        }
    }
}
