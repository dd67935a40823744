//! The space that the objects of a data root take, as `docker system df` shows it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::containers::ContainerInfo;
use super::failure::Refusal;
use super::images::Images;
use super::volumes::VolumeService;
use crate::catalog::error::CatalogError;
use crate::volume;

type Result<T> = std::result::Result<T, Refusal>;

/// The objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KindUsage {
    /// The kind.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// Their number.
    pub total_count: u64,
    /// Those that are in use.
    pub active: u64,
    /// Their bytes on the host.
    pub size: u64,
    /// The bytes that `lamina system prune -a --volumes` would free.
    pub reclaimable: u64,
}

impl KindUsage {
    const fn new(kind: &'static str) -> Self {
        Self { kind, total_count: 0, active: 0, size: 0, reclaimable: 0 }
    }

    const fn add(&mut self, is_active: bool, bytes: u64) {
        self.total_count += 1;
        self.size += bytes;
        match is_active {
            true => self.active += 1,
            false => self.reclaimable += bytes,
        }
    }
}

/// The bytes of a directory of the host; none for one that vanished.
fn space(dir: &Path) -> u64 {
    match volume::tree_usage(dir) {
        Ok(usage) => usage.host_bytes,
        Err(error) => {
            tracing::debug!(%error, dir = %dir.display(), "its space is not counted");
            0
        }
    }
}

impl Images {
    /// The space of all objects, by their kind. Objects that vanish meanwhile do not count.
    ///
    /// # Errors
    /// [`Refusal`] if a record cannot be read.
    pub fn usage(&self, volumes: &VolumeService, runtime: Option<&Path>) -> Result<Vec<KindUsage>> {
        Ok(vec![
            self.images_usage()?,
            self.containers_usage(runtime)?,
            volumes_usage(volumes)?,
            self.snapshots_usage(volumes)?,
            trash_usage(volumes)?,
            self.materials_usage()?,
        ])
    }

    fn images_usage(&self) -> Result<KindUsage> {
        let used: BTreeSet<String> =
            self.containers.all()?.into_iter().map(|container| container.image.id).collect();
        let all = self.images.all()?;
        let mut found = KindUsage::new("Images");
        found.total_count = all.len() as u64;
        let idle = all.iter().map(|(image, _)| image.id.clone()).filter(|id| !used.contains(id));
        let idle: BTreeSet<String> = idle.collect();
        found.active = found.total_count - idle.len() as u64;
        for id in self.store.layers()? {
            found.size += self.store.size(&id)?;
        }
        found.reclaimable = self.unneeded(&idle)?.iter().map(|layer| layer.size).sum();
        Ok(found)
    }

    fn containers_usage(&self, runtime: Option<&Path>) -> Result<KindUsage> {
        let mut found = KindUsage::new("Containers");
        for one in self.containers(runtime)? {
            found.add(one.mounted, space(one.directory()));
        }
        Ok(found)
    }

    /// Snapshots share layers with each other and with what they are of: their space is that of all
    /// layers of uppers, and of the copies that other drivers make.
    fn snapshots_usage(&self, volumes: &VolumeService) -> Result<KindUsage> {
        let mut found = KindUsage::new("Snapshots");
        for one in volumes.volumes.snapshots(None)? {
            found.total_count += 1;
            found.active += 1;
            found.size += space(one.directory());
        }
        let layers = self.volumes.join(".layers");
        if layers.exists() {
            found.size += space(&layers);
        }
        Ok(found)
    }

    fn materials_usage(&self) -> Result<KindUsage> {
        let mut found = KindUsage::new("Cache");
        for (bytes, is_used) in self.store.materials_usage()? {
            found.add(is_used, bytes);
        }
        Ok(found)
    }

    /// The bytes of the directory of a container.
    #[must_use]
    pub fn container_space(&self, one: &ContainerInfo) -> u64 {
        space(one.directory())
    }

    /// The bytes of the materialised files that no process uses.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn idle_materials(&self) -> Result<u64> {
        Ok(self.materials_usage()?.reclaimable)
    }

    /// Removes the materialised files that no process uses, and returns their bytes. They are made
    /// again as they are needed.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn drop_materials(&self) -> Result<u64> {
        Ok(self.store.drop_materials()?)
    }
}

fn volumes_usage(volumes: &VolumeService) -> Result<KindUsage> {
    let mut found = KindUsage::new("Volumes");
    for one in volumes.list()? {
        let bytes = match volumes.usage(&one.name) {
            Err(error) if error.is_missing() => continue,
            Err(error) => {
                tracing::debug!(%error, volume = %one.name, "its space is not counted");
                0
            }
            Ok(usage) => usage.host_bytes,
        };
        match volumes.is_used(&one) {
            Err(Refusal::Catalog(CatalogError::Missing { .. })) => {}
            used => found.add(used?, bytes),
        }
    }
    Ok(found)
}

fn trash_usage(volumes: &VolumeService) -> Result<KindUsage> {
    let mut found = KindUsage::new("Trash");
    for one in volumes.trashed()? {
        found.add(false, space(one.volume.directory()));
    }
    Ok(found)
}
