//! Immutable layers, named by their digest: building, reading, verification, removal.
//!
//! Below the data root, a layer is `layers/ID/` with `index` and `data`. It is built in
//! `layers/.new-…`, made durable as a whole and renamed, so after a crash it is absent or whole.
//! The process that builds it holds a lock on that directory, which distinguishes work under way
//! from the remains of a crash. `materials/` holds whole files that were made from layers for the
//! kernel to read; all of it may be removed.

mod ahead;
mod blob;
mod budget;
mod build;
pub mod damage;
pub mod error;
pub mod fetch;
pub(crate) mod files;

pub mod id;
mod layer;
mod material;
mod merge;
pub mod native;
mod pack;
pub mod packed;
mod reading;
pub mod recipe;
pub mod remote;
mod repair;
pub(crate) mod room;
pub mod sink;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::cache::{BlockCache, CacheStats};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::hex;

pub use build::{LayerBuilder, Written};
pub use damage::Damage;
pub use id::{DiffId, LayerId};
pub use layer::Layer;
pub use material::MaterialStats;

use error::{Result, StoreError};
use fetch::Connect;
use files::{NEW, discard, make_dir, open_dir};
use merge::merge;
use reading::Reading;

/// The store of layers below a data root.
pub struct Store {
    layers: PathBuf,
    recipes: recipe::Recipes,
    packed: packed::PackedLayers,
    reading: Arc<Reading>,
    /// The open layers. The lock of an entry is held while its layer is opened.
    open: DashMap<LayerId, Arc<Mutex<Weak<Layer>>>>,
}

/// Counters of the reading of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoreStats {
    /// The cache of blocks in memory.
    pub cache: CacheStats,
    /// The materialised files on the host.
    pub materials: MaterialStats,
    /// Frames that differed from their digest; each caused an `EIO`.
    pub damaged: u64,
    /// The data that was fetched from registries.
    #[serde(default)]
    pub fetched: remote::RemoteStats,
}

/// A layer that is being built, and the lock on its directory.
pub struct Build {
    /// Receives the content of the layer.
    pub builder: LayerBuilder,
    _lock: OwnedFd,
}

impl Store {
    /// Opens the store of a data root and creates missing directories. Layers with parts in a
    /// registry cannot be opened.
    ///
    /// # Errors
    /// As mkdir(2), with the path.
    pub fn open(root: &Path, cache: Arc<BlockCache>) -> Result<Self> {
        Self::open_with(root, cache, None, Box::new(fetch::nowhere))
    }

    /// Opens the store with a budget in bytes for materialised files and with the connection to
    /// registries. A budget of 0 means no materialised files, `None` means a default that depends
    /// on the file system.
    ///
    /// # Errors
    /// As mkdir(2), with the path.
    pub fn open_with(
        root: &Path,
        cache: Arc<BlockCache>,
        budget: Option<u64>,
        connect: Box<Connect>,
    ) -> Result<Self> {
        // The path is made absolute: the daemon changes its directory, and some subdirectories are
        // made later.
        let root = &std::path::absolute(root).map_err(StoreError::io(root))?;
        let layers = root.join("layers");
        make_dir(&layers)?;
        let reading = Arc::new(Reading {
            materials: material::Materials::new(root, budget, &cache),
            cache,
            ahead: ahead::Ahead::default(),
            damaged: AtomicU64::new(0),
            fetched: remote::Counters::default(),
            connect,
        });
        let recipes = recipe::Recipes::open(root)?;
        let packed = packed::PackedLayers::new(root);
        Ok(Self { layers, recipes, packed, reading, open: DashMap::default() })
    }

    /// Returns a function that reads the counters and may outlive the store.
    pub fn counters(&self) -> impl Fn() -> StoreStats + Send + Sync + use<> {
        let reading = Arc::clone(&self.reading);
        move || StoreStats {
            cache: reading.cache.stats(),
            materials: reading.materials.stats(),
            damaged: reading.damaged.load(Ordering::Relaxed),
            fetched: reading.fetched.stats(),
        }
    }

    /// Returns a function that syncs the materialised files at the end of a process, so that the
    /// next process need not compare them with their digests. It may block for seconds.
    pub fn settling(&self) -> impl FnOnce() + Send + use<> {
        let reading = Arc::clone(&self.reading);
        move || reading.materials.settle()
    }

    /// Compares the materialised files with their digests and removes those that differ.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn verify_materials(&self) -> Result<Vec<Damage>> {
        self.reading.materials.verify().map_err(StoreError::io(&self.layers))
    }

    /// Removes the materialised files whose content is in no layer.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn collect_materials(&self) -> Result<usize> {
        let mut needed = std::collections::HashSet::new();
        for id in self.layers()? {
            // A layer that cannot be read makes no use of materialised files either.
            let Ok(layer) = self.layer(&id) else { continue };
            needed.extend(layer.index().content_digests().iter().map(|digest| hex::encode(digest)));
        }
        self.reading.materials.collect(&needed).map_err(StoreError::io(&self.layers))
    }

    /// The bytes of each materialised file, and whether a process uses it.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn materials_usage(&self) -> Result<Vec<(u64, bool)>> {
        self.reading.materials.usage().map_err(StoreError::io(&self.layers))
    }

    /// Removes the materialised files that no process uses, and returns their bytes.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn drop_materials(&self) -> Result<u64> {
        self.reading.materials.drop_unused().map_err(StoreError::io(&self.layers))
    }

    /// The recipes, which describe how the tars of the layers were written.
    #[must_use]
    pub const fn recipes(&self) -> &recipe::Recipes {
        &self.recipes
    }

    /// The records of how layers were packed when they were sent.
    #[must_use]
    pub const fn packed(&self) -> &packed::PackedLayers {
        &self.packed
    }

    /// The directory of the store for files that are unlinked as soon as they are made.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.layers
    }

    /// Starts a new layer.
    ///
    /// # Errors
    /// As mkdir(2) and open(2).
    pub fn build(&self) -> Result<Build> {
        let (dir, lock) = self.begin()?;
        Ok(Build { builder: LayerBuilder::new(dir)?, _lock: lock })
    }

    /// Creates and locks a directory for a new layer.
    fn begin(&self) -> Result<(PathBuf, OwnedFd)> {
        for number in 0_u32.. {
            let dir = self.layers.join(format!("{NEW}{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(StoreError::io(&dir))?,
            }
            // Until it is locked, a collection may remove it as the remains of a crash.
            let Ok(lock) = open_dir(&dir) else { continue };
            if sys::file::try_flock(lock.as_fd()).is_ok() && is_named(&lock, &dir)? {
                return Ok((dir, lock));
            }
        }
        let what = "no free name for a new layer".to_owned();
        Err(StoreError::Damaged { path: self.layers.clone(), what })
    }

    /// Publishes a layer: all of it is on disk before it gets its name. A layer that already exists
    /// stays.
    ///
    /// # Errors
    /// [`StoreError::Entry`] for a hard link to a missing object; errors of the host.
    pub fn publish(&self, build: Build) -> Result<LayerId> {
        self.publish_written(build).map(|(id, _)| id)
    }

    /// Like [`Store::publish`], and also returns the places of the contents in the blob.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub fn publish_written(&self, build: Build) -> Result<(LayerId, Written)> {
        let Build { mut builder, _lock } = build;
        let done = self.publish_from(&mut builder);
        if done.is_err() {
            discard(builder.dir());
        }
        done.map(|id| (id, Written(builder)))
    }

    fn publish_from(&self, builder: &mut LayerBuilder) -> Result<LayerId> {
        let index = builder.finish()?;
        let id = LayerId::of(&index);
        let path = builder.dir().join(files::INDEX);
        fs::write(&path, &index).map_err(StoreError::io(&path))?;
        self.name(builder.dir(), &id)?;
        Ok(id)
    }

    /// Gives a new layer its name, once all of it is on disk. A layer that already exists stays,
    /// unless it is damaged.
    fn name(&self, dir: &Path, id: &LayerId) -> Result<()> {
        let target = self.layers.join(id.as_str());
        let replaces = target.exists() && self.is_to_be_replaced(id);
        if target.exists() && !replaces {
            return merge(dir, &target);
        }
        let parent = open_dir(&self.layers)?;
        sys::file::syncfs(parent.as_fd()).map_err(StoreError::host(&self.layers))?;
        if replaces {
            return self.replace(dir, id);
        }
        match fs::rename(dir, &target) {
            // Another process built the same layer in the meantime.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return merge(dir, &target);
            }
            renamed => renamed.map_err(StoreError::io(&target))?,
        }
        sys::file::fsync(parent.as_fd()).map_err(StoreError::host(&self.layers))
    }

    /// Discards a layer that was started.
    pub fn abandon(&self, build: Build) {
        discard(build.builder.dir());
    }

    /// Opens a layer and checks its index. While the layer is held, further calls return the same
    /// one.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Damaged`].
    pub fn layer(&self, id: &LayerId) -> Result<Arc<Layer>> {
        let layer = self.layer_early(id)?;
        layer.confirm()?;
        Ok(layer)
    }

    /// Like [`Store::layer`], but returns before the index is compared with its id. Nothing of the
    /// layer may be shown before [`Layer::confirm`] returned.
    ///
    /// # Errors
    /// As [`Store::layer`].
    pub fn layer_early(&self, id: &LayerId) -> Result<Arc<Layer>> {
        let dir = self.layers.join(id.as_str());
        let known = self.open.get(id).map(|known| Arc::clone(&known));
        if known.is_none() && !dir.exists() {
            return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
        }
        let known = known.unwrap_or_else(|| Arc::clone(&self.open.entry(id.clone()).or_default()));
        let mut known = known.lock();
        if let Some(layer) = known.upgrade() {
            return Ok(layer);
        }
        if !dir.exists() {
            return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
        }
        let layer = Layer::open(&dir, id.clone(), &self.reading)?;
        *known = Arc::downgrade(&layer);
        Ok(layer)
    }

    /// The number of bytes that a layer takes on the disk.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; as stat(2).
    pub fn size(&self, id: &LayerId) -> Result<u64> {
        let dir = self.layers.join(id.as_str());
        let mut size = 0;
        let is_partial = remote::is_partial(&dir);
        for file in [files::INDEX, files::DATA] {
            let path = dir.join(file);
            let found = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
                }
                found => found.map_err(StoreError::io(&path))?,
            };
            // Data that is still in a registry is a hole.
            let there = found.blocks().saturating_mul(512).min(found.len());
            size += if is_partial { there } else { found.len() };
        }
        Ok(size)
    }

    /// The ids of all layers, sorted.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.layers)?;
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let mut names = read().map_err(StoreError::io(&self.layers))?;
        names.sort();
        Ok(names)
    }

    /// Removes a layer.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::InUse`] while a process has it open; errors of the
    /// host.
    pub fn remove_layer(&self, id: &LayerId) -> Result<()> {
        let dir = self.layers.join(id.as_str());
        let index = dir.join(files::INDEX);
        if let Ok(lock) = sys::file::open_path(&index, OFlags::RDONLY) {
            match sys::file::try_flock(lock.as_fd()) {
                Err(error) if error.is(Errno::AGAIN) => {
                    let (name, by) = (id.to_string(), "a mount or a command".to_owned());
                    return Err(StoreError::InUse { kind: "layer", name, by });
                }
                locked => locked.map_err(StoreError::host(&index))?,
            }
            return self.remove_locked(id, &dir);
        }
        self.remove_locked(id, &dir)
    }

    fn remove_locked(&self, id: &LayerId, dir: &Path) -> Result<()> {
        // Rename first, so that a crash leaves no half of a layer under its name.
        let random = sys::process::random().map_err(StoreError::host(dir))?;
        let dead = self.layers.join(format!("{NEW}{id}-{}", hex::encode(&random)));
        match fs::rename(dir, &dead) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
            }
            renamed => renamed.map_err(StoreError::io(dir))?,
        }
        fs::remove_dir_all(&dead).map_err(StoreError::io(&dead))
    }

    /// Removes the directories that a crash left while layers were built or removed. Returns their
    /// number.
    ///
    /// # Errors
    /// Errors of the host.
    pub fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        for name in self.names()?.iter().filter(|name| name.starts_with(NEW)) {
            let dir = self.layers.join(name);
            let Ok(lock) = open_dir(&dir) else { continue };
            match sys::file::try_flock(lock.as_fd()) {
                Ok(()) => {}
                Err(error) if error.is(Errno::AGAIN) => continue,
                Err(error) => return Err(StoreError::host(&dir)(error)),
            }
            fs::remove_dir_all(&dir).map_err(StoreError::io(&dir))?;
            swept += 1;
        }
        Ok(swept)
    }
}

/// Whether a path still leads to an open directory.
fn is_named(dir: &OwnedFd, path: &Path) -> Result<bool> {
    let found = sys::file::statx(dir.as_fd(), b"").map_err(StoreError::host(path))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|named| named.ino() == found.ino))
}
