//! Where a mount has its record and its upper: a volume in the pool, a container in its directory.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::containers::stacks::{exchange, note_index, stack_of};
use super::super::failure::Refusal;
use super::super::spec::MountSpec;
use crate::catalog::containers::{read_limits, write_limits};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::store::files::open_dir;
use crate::sys;
use crate::types::Limits;
use crate::volume::VolumeError;
use crate::volume::union::pool::Pool;
use crate::volume::union::stack::{self, Stack};
use crate::volume::union::wire::Directory;

type Refused<T> = Result<T, Refusal>;

/// The record and the upper of a mount that can be frozen.
pub(super) struct Home {
    directory: Arc<Directory>,
    pub(super) pool: Pool,
    pub(super) is_container: bool,
}

impl Home {
    pub(super) fn new(spec: &MountSpec, path: &Path, directory: &Arc<Directory>) -> Self {
        let is_container = spec.container.is_some();
        let pool = match is_container {
            true => Pool::beside(&spec.root.join("volumes")),
            false => Pool::of(path),
        };
        Self { directory: Arc::clone(directory), pool, is_container }
    }

    /// The layers at present.
    pub(super) fn stack(&self) -> Refused<Stack> {
        match self.is_container {
            true => stack_of(&self.directory.path()),
            false => Ok(stack::read(&self.directory.path())?),
        }
    }

    /// The layers after a freeze. The upper of a container is named by no record, and gets the name
    /// of the new layer when the two are exchanged.
    pub(super) fn after(&self, before: &Stack, layer: &str) -> Stack {
        match self.is_container {
            true => Stack {
                layers: std::iter::once(layer)
                    .chain(before.layers.iter().map(String::as_str))
                    .map(str::to_owned)
                    .collect(),
                ..Stack::default()
            },
            false => before.frozen(Some(layer.to_owned())),
        }
    }

    /// The upper and its work directory.
    pub(super) fn upper(&self, stack: &Stack) -> Option<(PathBuf, PathBuf)> {
        if self.is_container {
            let directory = self.directory.path();
            return Some((directory.join("upper"), directory.join("work")));
        }
        let upper = stack.upper.as_ref()?;
        Some((self.pool.content(upper), self.pool.work(upper)))
    }

    /// Whether nothing was written to the upper since the last freeze.
    pub(super) fn is_unwritten(&self, before: &Stack) -> Refused<bool> {
        if !self.is_container {
            return Ok(self.pool.is_unwritten(before)?);
        }
        let Some(top) = before.layers.first() else { return Ok(false) };
        Ok(self.pool.is_empty_like(&self.directory.path().join("upper"), top)?)
    }

    /// Prepares for a crash between the exchange of the upper and that of its work directory.
    pub(super) fn note_index(&self) -> Refused<()> {
        if self.is_container { note_index(&self.directory.path()) } else { Ok(()) }
    }

    /// Makes the upper a layer, on disk. For a volume the record decides, for a container the
    /// exchange of the upper with an empty layer that the record names already.
    pub(super) fn freeze(&self, next: &Stack, content: &Path) -> Refused<()> {
        let directory = self.directory.path();
        stack::write(&directory, next)?;
        if !self.is_container {
            return Ok(());
        }
        let pooled = content.parent().unwrap_or(content);
        let open =
            |path: &Path| open_dir(path).map_err(|error| Refusal::from(CatalogError::from(error)));
        let (own, pooled) = (open(&directory)?, open(pooled)?);
        exchange((&own, b"upper"), (&pooled, b"diff"), content)?;
        if let Err(error) = exchange((&own, b"work"), (&pooled, b"work"), content) {
            exchange((&own, b"upper"), (&pooled, b"diff"), content)?;
            return Err(error);
        }
        for changed in [&pooled, &own] {
            sys::file::fsync(changed.as_fd()).map_err(VolumeError::host(content))?;
        }
        Ok(())
    }

    /// The limits that a request asks for. Of a container it names those that change.
    pub(super) fn limits(&self, asked: Limits) -> Refused<Limits> {
        match self.is_container {
            true => Ok(asked.or(read_limits(&self.directory.path())?)),
            false => Ok(asked),
        }
    }

    /// Records new limits, where the mount keeps them.
    pub(super) fn set_limits(&self, limits: Limits) -> Refused<()> {
        match self.is_container {
            true => Ok(write_limits(&self.directory.path(), limits)?),
            false => Ok(()),
        }
    }
}
