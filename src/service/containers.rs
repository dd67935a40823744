//! Containers: a writable layer over an image, under a name, mounted when it is wanted.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::failure::Refusal;
use super::images::Images;
use super::spec::{MountSpec, UpperDirs};
use super::status;
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::catalog::containers::Container;
use crate::catalog::error::{CatalogError, User};
use crate::error::{Errno, FromHost, Result};
use crate::types::{AttrChange, ContainerName, Graft, MODE_MASK, SetTime, XattrFlags};
use crate::union::{DirRef, Lower};

type Refused<T> = std::result::Result<T, Refusal>;

/// A container as a list shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Its image as it was asked for.
    pub image: String,
    /// The id of that.
    pub image_id: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Where it is mounted, if it is, as far as that is told.
    pub mountpoint: Option<PathBuf>,
    /// Whether it is mounted.
    pub mounted: bool,
    /// Its writable layer.
    pub upper: PathBuf,
    /// What appears in it from elsewhere, `WHAT at PATH`.
    pub grafts: Vec<String>,
}

/// What a container is to be.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    /// What it is called; by the first digits of its id without one.
    pub name: Option<ContainerName>,
    /// Its image.
    pub image: String,
    /// What appears in it from elsewhere.
    pub grafts: Vec<Graft>,
}

impl Images {
    /// Makes a container; answers its name.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn create_container(&self, new: NewContainer) -> Refused<String> {
        let _kept = self.images.importing()?;
        let (image, name) = self.images.find_named(&new.image)?;
        let lowers = self.lowers(&image.id)?;
        let fill = |upper: &Path| match lowers.first() {
            Some(top) => root_like(top, upper).map_err(CatalogError::host(upper)),
            None => Ok(()),
        };
        let image = (name.as_str(), image);
        let made = self.containers.create(new.name, image, new.grafts, fill)?;
        Ok(made.name.into())
    }

    /// All containers, by name. `runtime` is where mounts tell their status.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn containers(&self, runtime: Option<&Path>) -> Refused<Vec<ContainerInfo>> {
        let all = self.containers.all()?;
        all.into_iter().map(|container| self.container_info(&container, runtime)).collect()
    }

    /// A container, by name or the first digits of its id.
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
        let upper = self.containers.path(container).join("upper");
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
            grafts: container.grafts.iter().map(shown).collect(),
        })
    }

    /// Makes `spec` a mount of a container. Without a mount point it gets one of its own.
    ///
    /// # Errors
    /// `Missing` and `InUse` of [`Refusal::Catalog`], the latter where it is mounted already.
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
        spec.source.get_or_insert_with(|| container.name.as_str().into());
        spec.upper = Some(UpperDirs { upper: dir.join("upper"), work: Some(dir.join("work")) });
        spec.grafts.splice(..0, container.grafts);
        spec.container = Some(container.id);
        Ok(())
    }

    /// Removes a container and what was written to it. Volumes stay.
    ///
    /// # Errors
    /// `Missing` and `InUse` of [`Refusal::Catalog`], the latter while it is mounted.
    pub fn remove_container(&self, name: &str) -> Refused<()> {
        Ok(self.containers.remove(&self.containers.find(name)?)?)
    }
}

/// Gives a new upper the attributes of the root below it: those of the upper are what a mount
/// shows.
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
        // Marks of the layer are none of the upper.
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
