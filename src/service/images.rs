//! The images of a data root: list, inspect, verify, remove, collect; and their layers for a mount.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use super::spec::Keep;
use crate::backing::blob;
use crate::cache::BlockCache;
use crate::catalog::containers::Containers;
use crate::catalog::error::{CatalogError, User};
use crate::store::{Layer, LayerId, Store};
use crate::transfer::registry::fetch::connect;
use crate::types::Digest;
use crate::union::Lower;

pub use super::failure::Refusal;
pub use super::verify::Finding;
pub use crate::catalog::image::{Image, ImageLayer};

/// The images and layers of a data root.
pub struct Images {
    pub(super) store: Store,
    pub(super) images: crate::catalog::images::Images,
    pub(super) containers: Containers,
    pub(super) downloads: PathBuf,
    /// The directory of the volumes, whose layers of images are kept.
    pub(super) volumes: PathBuf,
    /// Layers of a mount whose index is not yet compared with their id.
    early: Mutex<Vec<Arc<Layer>>>,
}

/// An image, as `image ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ImageInfo {
    /// SHA-256 of its configuration.
    pub id: String,
    /// The names, `NAME:TAG` each.
    pub names: Vec<String>,
    /// The number of layers.
    pub layers: usize,
    /// Bytes of its layers in the store, including layers shared with other images.
    pub size: u64,
    /// The time of creation in the configuration.
    pub created: Option<String>,
}

/// All information about an image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageDetails {
    /// The part that a list shows.
    #[serde(flatten)]
    pub info: ImageInfo,
    /// The layers, the lowest first.
    pub rootfs: Vec<ImageLayer>,
    /// The configuration.
    pub config: serde_json::Value,
}

/// A step of the history of an image.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryStep {
    /// The time.
    pub created: Option<String>,
    /// The command.
    pub created_by: Option<String>,
    /// The layer that the step made, if any.
    pub layer: Option<String>,
}

/// A layer, as a list shows it.
#[derive(Debug, Clone, Serialize)]
pub struct LayerInfo {
    /// The id.
    pub id: String,
    /// Bytes in the store.
    pub size: u64,
    /// Bytes that are still in a registry.
    pub missing: u64,
    /// The number of objects.
    pub objects: usize,
    /// The ids of the images that need it.
    pub images: Vec<String>,
}

/// The cache that all layers of the process share; the first call determines its size.
fn cache(bytes: Option<u64>) -> Arc<BlockCache> {
    static CACHE: OnceLock<Arc<BlockCache>> = OnceLock::new();
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let new = || BlockCache::new(bytes.unwrap_or(BlockCache::DEFAULT_BYTES));
    Arc::clone(CACHE.get_or_init(new))
}

type Result<T> = std::result::Result<T, Refusal>;

impl Images {
    /// Opens a data root and creates missing directories.
    ///
    /// # Errors
    /// [`Refusal`] with the path.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Keep::default())
    }

    /// Opens the layers of an image for a mount.
    pub(super) fn open_with(root: &Path, keep: Keep) -> Result<Self> {
        let store = Store::open_with(
            root,
            cache(keep.cache_bytes),
            keep.material_bytes,
            Box::new(connect),
        )?;
        let images = crate::catalog::images::Images::open(root)?;
        let containers = Containers::open(root)?;
        let downloads = crate::transfer::registry::download::directory(root);
        let volumes = root.join("volumes");
        Ok(Self { store, images, containers, downloads, volumes, early: Mutex::default() })
    }

    fn info(&self, image: &Image, names: Vec<String>) -> Result<ImageInfo> {
        let mut size = 0;
        for layer in &image.layers {
            size += self.store.size(&layer.id)?;
        }
        let created = config(image).get("created").and_then(text);
        Ok(ImageInfo { id: image.id.clone(), names, layers: image.layers.len(), size, created })
    }

    /// All images.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let all = self.images.all()?;
        all.into_iter().map(|(image, names)| self.info(&image, names)).collect()
    }

    /// Returns all information about an image.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn inspect(&self, name: &str) -> Result<ImageDetails> {
        let image = self.images.find(name)?;
        let names = self.images.names()?.remove(&image.id).unwrap_or_default();
        let info = self.info(&image, names)?;
        Ok(ImageDetails { info, config: config(&image), rootfs: image.layers })
    }

    /// The history of an image, the first step first.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryStep>> {
        let image = self.images.find(name)?;
        let config = config(&image);
        let steps = config.get("history").and_then(serde_json::Value::as_array);
        let mut layers = image.layers.iter();
        let step = |value: &serde_json::Value| {
            let empty = value.get("empty_layer").and_then(serde_json::Value::as_bool);
            let layer = if empty == Some(true) { None } else { layers.next() };
            HistoryStep {
                created: value.get("created").and_then(text),
                created_by: value.get("created_by").and_then(text),
                layer: layer.map(|layer| layer.id.to_string()),
            }
        };
        Ok(steps.into_iter().flatten().map(step).collect())
    }

    /// Removes a name, and the image with its last name. Returns the name.
    ///
    /// # Errors
    /// `Missing` and `InUse` of [`Refusal::Catalog`], the latter if a container uses the image.
    pub fn remove(&self, name: &str) -> Result<String> {
        // The lock prevents new containers of it in the meantime.
        let _kept = self.images.importing()?;
        self.removable(name)?;
        Ok(self.images.remove(name)?)
    }

    /// The name that [`Images::remove`] would remove.
    ///
    /// # Errors
    /// As [`Images::remove`].
    pub fn removable(&self, name: &str) -> Result<String> {
        let (found, shown) = self.images.find_named(name)?;
        let id = found.id;
        let user = self.containers.all()?.into_iter().find(|container| container.image.id == id);
        if let Some(user) = user {
            let (name, by) = (name.to_owned(), User::Container(user.name.into()));
            return Err(CatalogError::InUse { kind: "image", name, by }.into());
        }
        Ok(shown)
    }

    /// All layers.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn layers(&self) -> Result<Vec<LayerInfo>> {
        let all = self.images.all()?;
        let info = |id: &LayerId| {
            let needs = |(image, _): &&(Image, Vec<String>)| {
                image.layers.iter().any(|layer| layer.id == *id)
            };
            let layer = self.store.layer(id)?;
            let (missing, objects) = (layer.missing(), layer.index().inodes().len());
            Ok(LayerInfo {
                id: id.to_string(),
                size: self.store.size(id)?,
                missing,
                objects,
                images: all.iter().filter(needs).map(|(image, _)| image.id.clone()).collect(),
            })
        };
        self.store.layers()?.iter().map(info).collect()
    }

    /// Removes the layers that no image needs and no process reads. Returns their ids.
    ///
    /// # Errors
    /// [`Refusal`] if a record cannot be read; then nothing is removed.
    pub fn collect(&self) -> Result<Vec<String>> {
        self.collect_reporting(&mut |_| {})
    }

    /// As [`Images::collect`]; `on_removed` gets each layer when it is removed.
    pub(super) fn collect_reporting(
        &self,
        on_removed: &mut dyn FnMut(&LayerId),
    ) -> Result<Vec<String>> {
        let removed = self.collect_layers(on_removed)?;
        self.store.collect_materials()?;
        Ok(removed.iter().map(LayerId::to_string).collect())
    }

    /// The layers that were made from tar streams, by the digest of the stream.
    pub(super) fn known_layers(&self) -> Result<HashMap<Digest, ImageLayer>> {
        Ok(self.images.known_layers(&self.store.layers()?)?)
    }

    /// The layers of an image for a mount, topmost first.
    pub(super) fn lowers(&self, name: &str) -> Result<Vec<Lower>> {
        Ok(stacked(self.layers_by_name(name)?))
    }

    /// The layers of an image for a mount, the lowest first, each with a label.
    pub(super) fn layers_by_name(&self, name: &str) -> Result<Vec<Named>> {
        let (image, name) = self.images.find_named(name)?;
        self.layers_of(&name, &image)
    }

    /// The full name of an image in the store, for a full or short one.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn resolved_name(&self, name: &str) -> Result<String> {
        Ok(self.images.find_named(name)?.1)
    }

    /// Finds an image by its name.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn find(&self, name: &str) -> Result<Image> {
        Ok(self.images.find(name)?)
    }

    /// The layers of a container for a mount, the lowest first.
    pub(super) fn layers_of_container(&self, name: &str) -> Result<Vec<Named>> {
        let container = self.containers.find(name)?;
        self.layers_of(&container.image_name, &container.image)
    }

    /// Opens layers for a mount by their ids, the lowest first.
    pub(super) fn layers_by_id(&self, ids: &[String]) -> Result<Vec<Named>> {
        let open = |id: &String| Ok((self.open_early(&id.parse()?)?, format!("layer {id}")));
        ids.iter().map(open).collect()
    }

    /// The ids of the layers of an image, the lowest first.
    ///
    /// # Errors
    /// `Missing` of [`Refusal::Catalog`].
    pub fn layer_ids(&self, name: &str) -> Result<Vec<String>> {
        let image = self.images.find(name)?;
        Ok(image.layers.into_iter().map(|layer| layer.id.to_string()).collect())
    }

    fn open_early(&self, id: &LayerId) -> Result<Arc<Layer>> {
        let layer = self.store.layer_early(id)?;
        self.early.lock().push(Arc::clone(&layer));
        Ok(layer)
    }

    /// Takes the layers that were opened for a mount so far. Nothing of them may be shown before
    /// they are confirmed.
    pub(super) fn early(&self) -> Vec<Arc<Layer>> {
        std::mem::take(&mut *self.early.lock())
    }

    fn layers_of(&self, name: &str, image: &Image) -> Result<Vec<Named>> {
        let open =
            |layer: &ImageLayer| Ok((self.open_early(&layer.id)?, format!("{name} {}", layer.id)));
        image.layers.iter().map(open).collect()
    }
}

/// A layer, and its label in the list of layers of a mount.
pub(super) type Named = (Arc<Layer>, String);

/// Converts a stack of layers, the lowest first, to the lowers of a mount, topmost first.
pub(super) fn stacked(layers: Vec<Named>) -> Vec<Lower> {
    let (layers, labels): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let lowers = blob::roots(layers).into_iter().zip(labels);
    lowers
        .map(|(root, label)| Lower { root, label, shifted: false, was_upper: false })
        .rev()
        .collect()
}

fn config(image: &Image) -> serde_json::Value {
    serde_json::from_slice(&image.config).unwrap_or_default()
}

fn text(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
