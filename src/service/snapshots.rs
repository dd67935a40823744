//! Snapshots of containers with their volumes, and what is made of them.
//!
//! A snapshot makes the upper of a container a layer of the pool of the volumes, and an empty
//! directory the upper: the two are exchanged in one step, by the process that serves the container
//! if it is mounted. `stack.json` in the directory of
//! the container names its layers, which lie above those of the image. It is written before the
//! exchange: the new layer is empty then, and hides nothing. The upper stays `upper`.
//!
//! In the catalogue a snapshot is a snapshot of a volume of the driver `union`, with the id of the
//! container as its origin and the snapshots of the volumes as its labels. All of them appear in
//! one transaction.

mod fork;
pub(super) mod passing;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Failure;
use super::containers::root_like;
use super::containers::stacks::{exchange, note_index, settle_index, stack_of};
use super::failure::{Refusal, ServiceResult};
use super::images::Images;
use super::mount::View;
use super::spec::{MountSpec, UpperDirs};
use super::volumes::group::{Content, MEMBER, Root, Taking};
use super::volumes::snapshot::now;
use super::volumes::{Volume, VolumeService};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::catalog::containers::Container;
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Growing;
use crate::error::FromHost;
use crate::store::files::{open_dir, sync_file_system};
use crate::sys;
use crate::types::VolumeName;
use crate::union::Lower;
use crate::volume::union::pool::Pool;
use crate::volume::union::running::Running;
use crate::volume::union::stack::{self, Stack};
use crate::volume::{Place, union};

type Refused<T> = Result<T, Refusal>;

/// A snapshot of a container, as `container snapshot ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerSnapshot {
    /// The name of the container; `None` if it was removed.
    pub container: Option<String>,
    /// The name of the snapshot.
    pub name: String,
    /// The id of the snapshot.
    pub id: String,
    /// The time of its creation (RFC 3339).
    pub created: String,
    /// The volumes in it.
    pub volumes: Vec<String>,
}

/// A container that is not mounted, and is not while this lives.
struct Stopped {
    view: View,
    dir: PathBuf,
    pool: Pool,
    stack: Stack,
    /// The new upper, if the former one became a layer.
    upper: Option<OwnedFd>,
}

impl Stopped {
    /// Makes the upper a layer, unless nothing was written to it. The new upper looks as the root
    /// of `like`, or as the former one.
    fn freeze(&mut self, like: Option<&Path>) -> ServiceResult<()> {
        let upper = self.dir.join("upper");
        let written = match (self.stack.layers.first(), like) {
            (Some(top), None) => {
                !self.pool.is_empty_like(&upper, top).map_err(failed(&self.dir))?
            }
            _ => true,
        };
        if !written {
            return Ok(());
        }
        self.view.union.name_indexed().map_err(Failure::system("naming the files of the index"))?;
        let frozen = self.exchange(&upper, like.unwrap_or(&upper));
        frozen.map_err(failed(&self.dir))
    }

    fn exchange(&mut self, upper: &Path, like: &Path) -> Refused<()> {
        let _shared = self.pool.share()?;
        let layer = self.pool.make()?;
        let content = self.pool.content(&layer);
        let dress = || -> crate::error::Result<()> {
            let root = HostTree::open(like, Submounts::Sealed, &FdCache::new(8))?;
            let label = like.display().to_string();
            root_like(&Lower { root, label, shifted: false, was_upper: true }, &content)
        };
        dress().map_err(CatalogError::host(&content))?;
        let fresh = open_dir(&content).map_err(CatalogError::from)?;
        sys::file::try_flock(fresh.as_fd()).map_err(CatalogError::host(&content))?;
        let above = std::iter::once(&layer).chain(&self.stack.layers).cloned().collect();
        let next = Stack { layers: above, ..Stack::default() };
        note_index(&self.dir)?;
        stack::write(&self.dir, &next)?;
        let from = open_dir(&self.dir).map_err(CatalogError::from)?;
        let parent = content.parent().unwrap_or(&content);
        let to = open_dir(parent).map_err(CatalogError::from)?;
        exchange((&from, b"upper"), (&to, b"diff"), upper)?;
        settle_index(&self.dir)?;
        (self.stack, self.upper) = (next, Some(fresh));
        Ok(())
    }

    fn end(self) -> ServiceResult<()> {
        self.view.end()
    }
}

fn failed<E: Into<Refusal>>(dir: &Path) -> impl Fn(E) -> Failure + use<E> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    move |error| Failure::Container { name: name.clone(), error: Box::new(error.into()) }
}

impl Images {
    /// Waits for a mount that ends, and keeps the container from being mounted.
    fn stopped(&self, container: &Container, runtime: Option<&Path>) -> ServiceResult<Stopped> {
        let dir = self.containers.path(container);
        let pool = Pool::beside(&self.volumes);
        let stack = stack_of(&dir).map_err(failed(&dir))?;
        let root = self.volumes.parent().unwrap_or(&self.volumes).to_owned();
        let spec = MountSpec {
            root,
            runtime: runtime.map(Path::to_owned),
            lowers: stack.layers.iter().map(|id| pool.content(id)).collect(),
            former: stack.layers.len(),
            container: Some(container.id.clone()),
            upper: Some(UpperDirs { upper: dir.join("upper"), work: Some(dir.join("work")) }),
            ..MountSpec::default()
        };
        let view = View::open(&spec)?;
        Ok(Stopped { view, dir, pool, stack, upper: None })
    }

    /// Makes a snapshot of a container and of its volumes, all of which may be in use. Returns its
    /// name.
    ///
    /// # Errors
    /// [`Failure::InUse`] while a mount shows it that cannot be frozen;
    /// [`NotTogether`](crate::volume::VolumeError::NotTogether). An error or a crash leaves no part
    /// of
    /// the snapshot.
    pub fn snapshot_container(
        &self,
        volumes: &VolumeService,
        (name, snapshot): (&str, Option<VolumeName>),
        runtime: Option<&Path>,
    ) -> ServiceResult<String> {
        let refused = failed(Path::new(name));
        let snapshot = snapshot.map_or_else(now, Ok).map_err(&refused)?;
        let taken = self.take_container(volumes, (name, &snapshot), runtime)?;
        volumes.volumes.finish_all(taken).map_err(|error| refused(error.into()))?;
        Ok(snapshot.to_string())
    }

    /// Makes a snapshot that nobody sees until it is finished. The last part of it is the root.
    fn take_container(
        &self,
        volumes: &VolumeService,
        (name, snapshot): (&str, &VolumeName),
        runtime: Option<&Path>,
    ) -> ServiceResult<Vec<Growing>> {
        let refused = failed(Path::new(name));
        let find = || -> Refused<_> {
            let container = self.containers.find(name)?;
            Ok((used(volumes, &container)?, container))
        };
        let (members, container) = find().map_err(&refused)?;
        self.take_with(volumes, (&container, members, snapshot), runtime)
    }

    /// Makes such a snapshot of a container and some volumes.
    fn take_with(
        &self,
        volumes: &VolumeService,
        (container, members, snapshot): (&Container, Vec<Volume>, &VolumeName),
        runtime: Option<&Path>,
    ) -> ServiceResult<Vec<Growing>> {
        let (id, name) = (&*container.id, container.name.as_str());
        let refused = failed(Path::new(name));
        let image: Vec<String> =
            container.image.layers.iter().map(|layer| layer.id.to_string()).collect();
        let dir = self.containers.path(container);
        if union::is_answering(&dir) {
            let running = Running::new(&dir, Pool::beside(&self.volumes), image);
            let content = Content::Running(Box::new(running));
            let root = Root { name, id, content };
            let taking = Taking { root: Some(root), ..Taking::named(snapshot) };
            return volumes.take_all(members, taking).map_err(refused);
        }
        let mut stopped = self.stopped(container, runtime)?;
        self.containers.require_whole(container).map_err(|error| refused(error.into()))?;
        stopped.freeze(None)?;
        let layers = stopped.stack.layers.clone();
        let stack = Stack { layers, image, ..Stack::default() };
        let give = |to: &Place| -> Refused<()> {
            sync_file_system(&self.volumes).map_err(CatalogError::from)?;
            let _shared = Pool::beside(&self.volumes).share()?;
            Ok(stack::write(to.directory(), &stack)?)
        };
        let root = Root { name, id, content: Content::Still(&give) };
        let taking = Taking { root: Some(root), ..Taking::named(snapshot) };
        let taken = volumes.take_all(members, taking).map_err(refused)?;
        stopped.end()?;
        Ok(taken)
    }

    /// The snapshots of a container; those of all, also of removed ones, without a name.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn container_snapshots(
        &self,
        volumes: &VolumeService,
        name: Option<&str>,
    ) -> Refused<Vec<ContainerSnapshot>> {
        let of = name.map(|name| self.containers.find(name)).transpose()?;
        let all = self.containers.all()?;
        let found = volumes.volumes.snapshots(of.as_ref().map(|one| one.id.as_str()))?;
        let found = found.into_iter().filter(|one| one.origin.len() > one.id.len());
        let shown = |one: Volume| {
            let container = all.iter().find(|container| container.id == one.origin);
            let members = one.labels.keys().filter_map(|key| key.strip_prefix(MEMBER));
            ContainerSnapshot {
                container: container.map(|container| container.name.to_string()),
                volumes: members.map(str::to_owned).collect(),
                name: one.name.to_string(),
                id: one.id,
                created: one.created_at,
            }
        };
        Ok(found.map(shown).collect())
    }

    /// Removes a snapshot (`CONTAINER@SNAPSHOT`, or its id) with those of its volumes: a crash
    /// leaves all of them, or none.
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; [`CatalogError::InUse`] for one of a volume.
    pub fn remove_container_snapshot(&self, volumes: &VolumeService, text: &str) -> Refused<()> {
        let found = self.find_container_snapshot(volumes, text)?;
        let members = found.labels.iter().filter(|(key, _)| key.starts_with(MEMBER));
        let members = members.map(|(_, id)| id.as_str());
        volumes.remove_snapshots(members.chain([found.id.as_str()]).collect())
    }

    fn find_container_snapshot(&self, volumes: &VolumeService, text: &str) -> Refused<Volume> {
        let found = if let Some((container, name)) = text.split_once('@') {
            let of = self.containers.find(container)?.id;
            let all = volumes.volumes.snapshots(Some(&of))?;
            all.into_iter().find(|one| one.name.as_str() == name)
        } else {
            let all = volumes.volumes.snapshots(None)?;
            all.into_iter().find(|one| one.origin.len() > one.id.len() && one.id == text)
        };
        let (kind, name) = ("container snapshot", text.to_owned());
        found.ok_or_else(|| CatalogError::Missing { kind, name }.into())
    }

    /// Gives a stopped container, and its volumes, which nobody may use, the content of a snapshot.
    ///
    /// # Errors
    /// [`Failure::InUse`] while it is mounted; [`CatalogError::InUse`] for a volume. After an error
    /// or a crash in its midst the container cannot be mounted until the same call completed it.
    pub fn roll_back_container(
        &self,
        volumes: &VolumeService,
        (name, snapshot): (&str, &VolumeName),
        runtime: Option<&Path>,
    ) -> ServiceResult<()> {
        let refused = failed(Path::new(name));
        let find = || -> Refused<_> {
            let container = self.containers.find(name)?;
            let found = self.find_container_snapshot(volumes, &format!("{name}@{snapshot}"))?;
            Ok((container, members(volumes, &found)?, found))
        };
        let (container, members, found) = find().map_err(&refused)?;
        let mut stopped = self.stopped(&container, runtime)?;
        let roll_back = || -> Refused<()> {
            for (volume, snapshot) in &members {
                volumes.roll_back(volume, &snapshot.name)?;
            }
            Ok(())
        };
        let idle = || -> Refused<()> {
            for (volume, _) in &members {
                volumes.volumes.lock(volume)?.require_idle()?;
            }
            Ok(())
        };
        idle().map_err(&refused)?;
        let begun = self.containers.begin_rollback(&container, snapshot.as_str());
        begun.map_err(|error| refused(error.into()))?;
        roll_back().map_err(&refused)?;
        // The snapshot keeps its layers until the container has them.
        let kept =
            volumes.volumes.lock_snapshot(&found.id).map_err(|error| refused(error.into()))?;
        let read = stack::read(kept.volume().directory());
        let layers = read.map_err(|error| refused(error.into()))?.layers;
        let like = layers.first().map(|top| stopped.pool.content(top));
        stopped.freeze(like.as_deref())?;
        let write = || -> Refused<()> {
            let _shared = stopped.pool.share()?;
            stack::write(&stopped.dir, &Stack { layers, ..Stack::default() })?;
            Ok(self.containers.end_rollback(&container)?)
        };
        write().map_err(&refused)?;
        stopped.end()?;
        if let Err(error) = crate::volume::settle(&self.volumes) {
            tracing::warn!(%error, "layers without a container stay");
        }
        Ok(())
    }
}

/// The volumes of a container that exist.
fn used(volumes: &VolumeService, container: &Container) -> Refused<Vec<Volume>> {
    let mut found = Vec::new();
    for name in container.grafts.iter().filter_map(|graft| graft.source.volume()) {
        match volumes.inspect(name) {
            Err(error) if error.is_missing() => {}
            volume => found.push(volume?),
        }
    }
    Ok(found)
}

/// The volumes in a snapshot of a container, each with its snapshot.
fn members(volumes: &VolumeService, of: &Volume) -> Refused<Vec<(VolumeName, Volume)>> {
    let mut found = Vec::new();
    for (key, id) in &of.labels {
        let Some(name) = key.strip_prefix(MEMBER) else { continue };
        let name = name.parse().map_err(CatalogError::from)?;
        found.push((name, volumes.volumes.find_snapshot(id)?));
    }
    Ok(found)
}
