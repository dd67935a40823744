//! The objects that are made before a mount is live: volumes, and the places of grafts. If the
//! mount fails they are removed again.

use std::path::{Path, PathBuf};

use super::Refusal;
use super::volumes::{NewVolume, Volume, VolumeService};
use crate::catalog::volumes;
use crate::error::{Errno, Result};
use crate::types::{Kind, Name, NodeId, VolumeName};
use crate::union::{DirRef, GraftTree, Union};

/// The objects made so far.
pub(super) struct Made {
    root: PathBuf,
    volumes: Vec<Volume>,
    /// Paths in the mount, parents first.
    places: Vec<Vec<Name>>,
    /// Whether the data root had no volumes before.
    is_new: bool,
    /// The upper with the places.
    upper: Option<DirRef>,
}

impl Made {
    pub(super) fn new(root: &Path) -> Self {
        let is_new = !root.join("volumes").exists();
        let (root, volumes, places) = (root.to_owned(), Vec::new(), Vec::new());
        Self { root, volumes, places, is_new, upper: None }
    }

    /// Sets the upper with the places.
    pub(super) fn within(self, upper: Option<DirRef>) -> Self {
        Self { upper, ..self }
    }

    /// Creates a volume if it does not exist.
    pub(super) fn volume(&mut self, name: &VolumeName) -> std::result::Result<(), Refusal> {
        let service = VolumeService::open(&self.root)?;
        let (volume, is_new) = service.ensure(NewVolume::new(name.clone()))?;
        if is_new {
            self.volumes.push(volume);
        }
        Ok(())
    }

    /// Records a place that was made.
    pub(super) fn place(&mut self, path: Vec<Name>) {
        self.places.push(path);
    }

    /// Removes everything, after the union is gone.
    pub(super) fn undo_later(self) {
        let removed = self.upper.as_ref().map_or(Ok(()), |upper| {
            self.places.iter().rev().try_for_each(|path| remove_from(upper, path))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "places of grafts stay in the upper directory");
        }
        self.undo_volumes();
    }

    /// Removes everything.
    pub(super) fn undo(self, build: &dyn Fn(&[GraftTree]) -> Result<Union>) {
        if !self.places.is_empty() {
            let removed = build(&[]).and_then(|union| {
                let last_first = self.places.iter().rev();
                last_first.map(|path| remove(&union, path)).collect::<Result<Vec<()>>>()?;
                union.shutdown()
            });
            if let Err(error) = removed {
                tracing::warn!(%error, "places of grafts stay in the upper directory");
            }
        }
        self.undo_volumes();
    }

    /// Removes the volumes. Volumes that are in use by now, and those that cannot be removed, stay:
    /// the error to report is the one that made the mount fail.
    fn undo_volumes(self) {
        for volume in &self.volumes {
            let removed = VolumeService::open(&self.root).and_then(|all| all.erase_made(volume));
            if let Err(error) = removed {
                tracing::warn!(%error, name = %volume.name, "a volume stays");
            }
        }
        if self.is_new
            && let Err(error) = volumes::discard(&self.root)
        {
            tracing::debug!(%error, root = %self.root.display(), "stays");
        }
    }
}

/// Removes an object that was made in an upper, unless it hides an object below.
fn remove_from(upper: &DirRef, path: &[Name]) -> Result<()> {
    let (name, parent) = path.split_last().ok_or(Errno::INVAL)?;
    let dir = parent.iter().fold(DirRef::clone(upper), |dir, component| dir.dir(component));
    if dir.stat(Some(name))?.kind() != Kind::Dir {
        return dir.unlink(name);
    }
    for mark in [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"] {
        if matches!(dir.xattr(Some(name), mark), Ok(Some(_))) {
            return Ok(());
        }
    }
    dir.rmdir(name)
}

fn remove(union: &Union, path: &[Name]) -> Result<()> {
    let (name, parent) = path.split_last().ok_or(Errno::INVAL)?;
    let mut node = NodeId::ROOT;
    for component in parent {
        node = union.lookup(node, component)?.ok_or(Errno::NOENT)?.node;
    }
    let entry = union.lookup(node, name)?.ok_or(Errno::NOENT)?;
    match entry.stat.kind() {
        Kind::Dir => union.rmdir(node, name),
        _ => union.unlink(node, name),
    }
}
