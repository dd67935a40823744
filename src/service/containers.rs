//! Containers: a named writable layer over an image, which can be mounted.

mod runs;
pub(super) mod stacks;

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::failure::Refusal;
use super::images::Images;
use super::spec::{MountSpec, UpperDirs};
use super::{sizes, status};
use crate::backing::counted::Account;
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::catalog::containers::{Container, read_program, read_run, write_limits, write_program};
use crate::catalog::error::{CatalogError, User};
use crate::error::{Errno, FromHost, Result};
use crate::fuse::session::IoDriver;
use crate::types::{
    AttrChange, ContainerName, Graft, Limits, MODE_MASK, Program, Run, SetTime, XattrFlags,
};
use crate::union::{DirRef, Lower};
use crate::volume::{self, VolumeError, union::pool::Pool};

type Refused<T> = std::result::Result<T, Refusal>;

/// A container, as `container ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerInfo {
    /// The id, 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// The name of its image, as it was given.
    pub image: String,
    /// The id of its image.
    pub image_id: String,
    /// The time of creation (RFC 3339).
    pub created: String,
    /// The mount point, if it is mounted and known.
    pub mountpoint: Option<PathBuf>,
    /// Whether it is mounted.
    pub mounted: bool,
    /// The upper directory.
    pub upper: PathBuf,
    /// The grafts, `WHAT at PATH`.
    pub grafts: Vec<String>,
    /// The limits of what is written to it.
    #[serde(flatten)]
    pub limits: Limits,
    /// The program, if it is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// The last run of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

impl ContainerInfo {
    /// The directory of the container.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.upper.parent().unwrap_or(&self.upper)
    }
}

/// The properties of a new container.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    /// The name; by default the first digits of the id.
    pub name: Option<ContainerName>,
    /// The name of the image.
    pub image: String,
    /// The grafts.
    pub grafts: Vec<Graft>,
    /// The limits of what is written to it.
    pub limits: Limits,
    /// The program, if it is to be run.
    pub program: Option<Program>,
}

impl Images {
    /// Creates a container and returns its name.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn create_container(&self, new: NewContainer) -> Refused<String> {
        let _kept = self.images.importing()?;
        let (image, name) = self.images.find_named(&new.image)?;
        let lowers = self.lowers(&image.id)?;
        let fill = |upper: &Path| {
            let dir = upper.parent().unwrap_or(upper);
            if new.limits != Limits::default() {
                write_limits(dir, new.limits)?;
            }
            if let Some(program) = &new.program {
                write_program(dir, program)?;
            }
            match lowers.first() {
                Some(top) => root_like(top, upper).map_err(CatalogError::host(upper)),
                None => Ok(()),
            }
        };
        let image = (name.as_str(), image);
        let made = self.containers.create(new.name, image, new.grafts, fill)?;
        Ok(made.name.into())
    }

    /// All containers, sorted by name. `runtime` is the directory of the status sockets of mounts.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn containers(&self, runtime: Option<&Path>) -> Refused<Vec<ContainerInfo>> {
        let all = self.containers.all()?;
        all.into_iter().map(|container| self.container_info(&container, runtime)).collect()
    }

    /// Finds a container by its name or the first digits of its id.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn container(&self, name: &str, runtime: Option<&Path>) -> Refused<ContainerInfo> {
        self.container_info(&self.containers.find(name)?, runtime)
    }

    fn container_info(
        &self,
        container: &Container,
        runtime: Option<&Path>,
    ) -> Refused<ContainerInfo> {
        let mounted = self.containers.is_mounted(container)?;
        let dir = self.containers.path(container);
        let upper = dir.join("upper");
        let holder = || status::holder_of(runtime?, &std::fs::canonicalize(&upper).ok()?);
        let mountpoint = if mounted { holder().map(|status| status.target) } else { None };
        let created = UNIX_EPOCH + Duration::from_secs(container.created.try_into().unwrap_or(0));
        let shown = |graft: &Graft| format!("{} at {}", graft.source.label(), graft.shown_path());
        Ok(ContainerInfo {
            id: container.id.clone(),
            name: container.name.to_string(),
            image: container.image_name.clone(),
            image_id: container.image.id.clone(),
            created: humantime::format_rfc3339_seconds(created).to_string(),
            mountpoint,
            mounted,
            upper,
            limits: self.containers.limits(container)?,
            grafts: container.grafts.iter().map(shown).collect(),
            program: read_program(&dir)?,
            run: read_run(&dir)?,
        })
    }

    /// The layers of a container above its image, which snapshots made, the topmost first.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn former_layers(&self, name: &str) -> Refused<Vec<PathBuf>> {
        let dir = self.containers.path(&self.containers.find(name)?);
        let pool = Pool::beside(&self.volumes);
        Ok(stacks::stack_of(&dir)?.layers.iter().map(|layer| pool.content(layer)).collect())
    }

    /// Makes `spec` a mount of a container. By default the mount point is in the container's
    /// directory.
    ///
    /// # Errors
    /// `Missing` and `InUse` of [`Refusal::Catalog`], the latter if it is already mounted.
    pub fn mount_container(
        &self,
        name: &str,
        target: Option<PathBuf>,
        spec: &mut MountSpec,
    ) -> Refused<()> {
        let container = self.containers.find(name)?;
        if self.containers.is_mounted(&container)? {
            let (name, by) = (container.name.into(), User::Mount);
            return Err(CatalogError::InUse { kind: "container", name, by }.into());
        }
        self.containers.require_whole(&container)?;
        let dir = self.containers.path(&container);
        let own = || -> Refused<PathBuf> {
            let merged = dir.join("merged");
            match std::fs::create_dir(&merged) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.map_err(CatalogError::io(&merged))?,
            }
            Ok(merged)
        };
        spec.target = target.map_or_else(own, Ok)?;
        let pool = Pool::beside(&self.volumes);
        let former = stacks::stack_of(&dir)?.layers;
        spec.former = former.len();
        spec.lowers.splice(..0, former.iter().map(|id| pool.content(id)));
        spec.source.get_or_insert_with(|| container.name.as_str().into());
        spec.upper = Some(UpperDirs { upper: dir.join("upper"), work: Some(dir.join("work")) });
        spec.limits = self.containers.limits(&container)?;
        if !spec.flags.read_only && spec.rules.io.is_none_or(|io| io == IoDriver::Cached) {
            spec.freezer = Some(dir);
        }
        spec.grafts.splice(..0, container.grafts);
        spec.container = Some(container.id);
        Ok(())
    }

    /// Changes the limits of what is written to a container; `None` keeps one as it is.
    ///
    /// # Errors
    /// [`Refusal`]; `TooSmall` for less than is in use. The old limits hold then.
    pub fn resize_container(&self, name: &str, limits: Limits) -> Refused<Limits> {
        let container = self.containers.find(name)?;
        let dir = self.containers.path(&container);
        if volume::union::is_answering(&dir) {
            // The process changes those that are given, and records them.
            volume::union::resize(&dir, limits)?;
            return Ok(self.containers.limits(&container)?);
        }
        let _lock = self.containers.lock(&container)?;
        let limits = limits.or(self.containers.limits(&container)?);
        let upper = dir.join("upper");
        let mut used = sizes::used_at_rest(&upper).map_err(CatalogError::host(&upper))?;
        let pool = Pool::beside(&self.volumes);
        for layer in &stacks::stack_of(&dir)?.layers {
            let content = pool.content(layer);
            let kept = sizes::layer_used(&content).map_err(CatalogError::host(&content))?;
            used = used.and(kept);
        }
        let fits = Account::new(Limits::default(), used).resize(limits);
        let small = |used| VolumeError::TooSmall { what: sizes::shown(used) };
        fits.map_err(small)?;
        write_limits(&dir, limits)?;
        Ok(limits)
    }

    /// Removes a container and the data written to it. Volumes stay.
    ///
    /// # Errors
    /// `Missing` and `InUse` of [`Refusal::Catalog`], the latter while it is mounted.
    pub fn remove_container(&self, name: &str) -> Refused<()> {
        self.containers.remove(&self.containers.find(name)?)?;
        if let Err(error) = volume::settle(&self.volumes) {
            tracing::warn!(%error, "layers without a container stay");
        }
        Ok(())
    }
}

/// Copies the attributes of the root of the topmost layer to a new upper, since a mount shows those
/// of the upper.
pub(super) fn root_like(top: &Lower, upper: &Path) -> Result<()> {
    let root: DirRef = HostTree::open(upper, Submounts::Shown, &FdCache::new(8))?;
    let stat = top.root.stat(None)?;
    let change = AttrChange {
        uid: Some(stat.uid),
        gid: Some(stat.gid),
        mode: Some(stat.mode & MODE_MASK),
        ..AttrChange::default()
    };
    root.set_attr(None, &change)?;
    for key in top.root.xattr_names(None)? {
        // Overlay marks of the layer do not apply to the upper.
        if key.split(|byte| *byte == b'.').any(|part| part == b"overlay" || part == b"containers") {
            continue;
        }
        let Some(value) = top.root.xattr(None, &key)? else { continue };
        match root.set_xattr(None, &key, &value, XattrFlags::default()) {
            Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::PERM) => {
                tracing::warn!(%error, key = %String::from_utf8_lossy(&key), "not copied");
            }
            done => done?,
        }
    }
    let times = AttrChange {
        atime: Some(SetTime::At(stat.atime)),
        mtime: Some(SetTime::At(stat.mtime)),
        ..AttrChange::default()
    };
    root.set_attr(None, &times)
}
