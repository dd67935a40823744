//! Forks: a container of a snapshot of another one, or of that one as it is.

use std::path::Path;

use super::{MEMBER, Refused, failed, members};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::catalog::containers::{Container, read_program, write_limits, write_program};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Growing;
use crate::error::FromHost;
use crate::service::containers::root_like;
use crate::service::failure::ServiceResult;
use crate::service::images::{Images, stacked};
use crate::service::volumes::{Volume, VolumeService};
use crate::types::{ContainerName, Graft, GraftSource, Limits, VolumeName};
use crate::union::Lower;
use crate::volume::VolumeError;
use crate::volume::union::pool::Pool;
use crate::volume::union::stack::{self, Stack};

/// The content of a new container: the snapshot of a root, and those of volumes.
struct Source {
    of: Container,
    root: Volume,
    members: Vec<(VolumeName, Volume)>,
}

impl Images {
    /// Makes a container of a snapshot of another one, or of that one as it is, which may be in
    /// use: with the same image, the same layers, and clones of its volumes, called `NEW-VOLUME`.
    /// Returns the names of the clones.
    ///
    /// # Errors
    /// [`CatalogError::Exists`]; without a snapshot, as [`Images::snapshot_container`]. An error
    /// leaves none of them, and so does a crash, unless it hits the moment between the clones and
    /// the container.
    pub fn fork_container(
        &self,
        volumes: &VolumeService,
        (name, snapshot): (&str, Option<&str>),
        new: &ContainerName,
        runtime: Option<&Path>,
    ) -> ServiceResult<Vec<String>> {
        let refused = failed(Path::new(name));
        let Some(snapshot) = snapshot else { return self.fork_now(volumes, name, new, runtime) };
        let fork = || -> Refused<_> {
            let of = self.containers.find(name)?;
            let found = self.find_container_snapshot(volumes, &format!("{name}@{snapshot}"))?;
            let members = members(volumes, &found)?;
            // Each keeps its layers until the new ones have them.
            let kept = members.iter().map(|(_, one)| volumes.volumes.lock_snapshot(&one.id));
            let _kept = kept.collect::<Result<Vec<_>, _>>()?;
            let root = volumes.volumes.lock_snapshot(&found.id)?;
            let source = Source { of, root: root.volume().clone(), members };
            self.fork(volumes, &source, new)
        };
        fork().map_err(refused)
    }

    /// Takes a snapshot that nobody ever sees, so that a crash leaves none.
    fn fork_now(
        &self,
        volumes: &VolumeService,
        name: &str,
        new: &ContainerName,
        runtime: Option<&Path>,
    ) -> ServiceResult<Vec<String>> {
        let refused = failed(Path::new(name));
        let passing: String = format!("lamina-fork-{new}").chars().take(100).collect();
        let passing = passing.parse().map_err(|error| refused(CatalogError::from(error).into()))?;
        let taken = self.take_container(volumes, (name, &passing), runtime)?;
        let fork = || -> Refused<_> {
            let of = self.containers.find(name)?;
            let Some(root) = taken.last().map(|root| root.volume().clone()) else {
                return Ok(Vec::new());
            };
            let mut members = Vec::new();
            for (key, id) in &root.labels {
                let named = key.strip_prefix(MEMBER);
                let part = taken.iter().map(Growing::volume).find(|part| part.id == *id);
                if let (Some(name), Some(part)) = (named, part) {
                    members.push((name.parse().map_err(CatalogError::from)?, part.clone()));
                }
            }
            self.fork(volumes, &Source { of, root, members }, new)
        };
        let forked = fork();
        taken.iter().for_each(|one| volumes.volumes.give_up(one));
        forked.map_err(refused)
    }

    /// Nobody changes or removes the source meanwhile.
    fn fork(
        &self,
        volumes: &VolumeService,
        source: &Source,
        new: &ContainerName,
    ) -> Refused<Vec<String>> {
        let mut clones: Vec<(VolumeName, VolumeName)> = Vec::new();
        for (volume, _) in &source.members {
            let clone = format!("{new}-{volume}").parse().map_err(CatalogError::from)?;
            clones.push((volume.clone(), clone));
        }
        let parts = source.members.iter().zip(&clones);
        let parts = parts.map(|((_, part), (_, clone))| (part, clone.clone()));
        let mut grown = Some(volumes.copy_all(parts.collect())?);
        let grafts = source.of.grafts.iter().map(|graft| renamed(graft, &clones)).collect();
        let finish = || volumes.volumes.finish_all(grown.take().unwrap_or_default());
        if let Err(error) = self.create_fork(source, new, grafts, finish) {
            let is_seen = grown.is_none();
            grown.iter().flatten().for_each(|one| volumes.volumes.give_up(one));
            for (_, clone) in clones.iter().filter(|_| is_seen) {
                match volumes.erase(clone) {
                    Err(error) if error.is_missing() => {}
                    Err(error) => tracing::warn!(%error, name = %clone, "a clone stays"),
                    Ok(()) => {}
                }
            }
            return Err(error);
        }
        Ok(clones.iter().map(|(_, clone)| clone.to_string()).collect())
    }

    /// Makes the container. Its clones are seen just before it is, by `finish`.
    fn create_fork(
        &self,
        source: &Source,
        new: &ContainerName,
        grafts: Vec<Graft>,
        finish: impl FnOnce() -> Result<(), CatalogError>,
    ) -> Refused<()> {
        let (of, stack) = (&source.of, stack::read(source.root.directory())?);
        let _kept = self.images.importing()?;
        let pool = Pool::beside(&self.volumes);
        let _shared = pool.share()?;
        let layers = Stack { layers: stack.layers.clone(), ..Stack::default() };
        let top = match layers.layers.first() {
            Some(top) => {
                let content = pool.content(top);
                let root = HostTree::open(&content, Submounts::Sealed, &FdCache::new(8));
                let root = root.map_err(CatalogError::host(&content))?;
                let label = content.display().to_string();
                Some(Lower { root, label, shifted: false, was_upper: true })
            }
            None => stacked(self.layers_of_container(&of.id)?).into_iter().next(),
        };
        let limits = self.containers.limits(of)?;
        let program = read_program(&self.containers.path(of))?;
        let fill = |upper: &Path| {
            let dir = upper.parent().unwrap_or(upper);
            if limits != Limits::default() {
                write_limits(dir, limits)?;
            }
            if let Some(program) = &program {
                write_program(dir, program)?;
            }
            stack::write(dir, &layers).map_err(|error| match error {
                VolumeError::Catalog(error) => error,
                error => CatalogError::io(dir)(std::io::Error::other(error.to_string())),
            })?;
            let dressed = top.as_ref().map_or(Ok(()), |top| root_like(top, upper));
            dressed.map_err(CatalogError::host(upper))?;
            finish()
        };
        let image = (of.image_name.as_str(), of.image.clone());
        self.containers.create(Some(new.clone()), image, grafts, fill)?;
        Ok(())
    }
}

/// A graft with the clone of its volume.
fn renamed(graft: &Graft, clones: &[(VolumeName, VolumeName)]) -> Graft {
    let mut graft = graft.clone();
    if let GraftSource::Volume { name, .. } = &mut graft.source
        && let Some((_, clone)) = clones.iter().find(|(volume, _)| volume == name)
    {
        *name = clone.clone();
    }
    graft
}
