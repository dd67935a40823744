//! What a mount makes before it is there: volumes, and the places of grafts. A mount that fails
//! takes it away again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Volumes;
use crate::error::{Errno, Result};
use crate::types::{Kind, Name, NodeId, VolumeName};
use crate::union::{DirRef, GraftTree, Union};

/// What was made so far.
pub(super) struct Made {
    volumes: Volumes,
    names: Vec<VolumeName>,
    /// Paths in the mount, each after the one that holds it.
    places: Vec<Vec<Name>>,
    /// Directories of the data root that were not there, each after the one that holds it.
    directories: Vec<PathBuf>,
    /// Where the places are.
    upper: Option<DirRef>,
}

impl Made {
    pub(super) fn new(root: &Path) -> Self {
        let missing = [root.to_owned(), root.join("volumes")];
        let directories = missing.into_iter().filter(|path| !path.exists()).collect();
        let (names, places) = Default::default();
        Self { volumes: Volumes::new(root), names, places, directories, upper: None }
    }

    /// Notes the upper in which the places are.
    pub(super) fn within(self, upper: Option<DirRef>) -> Self {
        Self { upper, ..self }
    }

    /// Makes a volume that is not there.
    pub(super) fn volume(&mut self, name: &VolumeName) -> std::result::Result<(), CatalogError> {
        if matches!(self.volumes.inspect(name), Err(CatalogError::Missing { .. })) {
            self.names.push(name.clone());
        }
        self.volumes.create(name, BTreeMap::new()).map(drop)
    }

    /// Notes a place that was made.
    pub(super) fn place(&mut self, path: Vec<Name>) {
        self.places.push(path);
    }

    /// Takes all of it away when the union is gone.
    pub(super) fn undo_later(self) {
        let removed = self.upper.as_ref().map_or(Ok(()), |upper| {
            self.places.iter().rev().try_for_each(|path| remove_from(upper, path))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "places of grafts stay in the upper directory");
        }
        self.undo_volumes();
    }

    /// Takes all of it away.
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

    /// Takes the volumes away. What somebody else uses by now stays, and so does what cannot be
    /// removed: the mount has failed for a reason of its own, which is the one to tell.
    fn undo_volumes(self) {
        for name in &self.names {
            if let Err(error) = self.volumes.remove(name) {
                tracing::warn!(%error, %name, "a volume stays");
            }
        }
        for path in self.directories.iter().rev() {
            if let Err(error) = fs::remove_dir(path) {
                tracing::debug!(%error, path = %path.display(), "stays");
            }
        }
    }
}

/// Removes what was made in an upper: nothing that hides something below.
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
