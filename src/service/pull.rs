//! Pulls: an image of a registry into the store.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;

use super::images::{Image, ImageLayer, Images, StoreError};
use super::import::{Progress, Told, import_layers, put};
use crate::store::import::{FoundImage, FoundLayer};
use crate::store::native::{Data, Stream, id_of};
use crate::store::pull::Registry;
use crate::store::pull::transfer::{Transfer, directory, forget};
use crate::store::remote::Origin;

pub use crate::store::pull::access::{Access, Words};
pub use crate::store::pull::reference::Reference;

type Result<T> = std::result::Result<T, StoreError>;

/// Most layers that are downloaded at once.
const PARALLEL: usize = 3;
/// Bytes between two reports.
const REPORT: i64 = 1 << 20;

/// When the data of layers comes that are in our own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lazy {
    /// What is read at once, the rest while nobody asks, by whoever mounts the image.
    Background,
    /// When it is read.
    Demand,
}

/// What is pulled, and how.
pub struct Pull {
    /// Which image.
    pub reference: Reference,
    /// Its names in the store; none: that of the reference.
    pub names: Vec<String>,
    /// Who asks, and how.
    pub access: Access,
    /// Layers in our own form are left in the registry.
    pub lazy: Option<Lazy>,
}

/// A pull under way.
struct Work<'a> {
    images: &'a Images,
    registry: &'a Registry,
    dir: &'a Path,
    image: &'a FoundImage,
}

/// Pulls an image into the data root `root`, of which `images` are the images; answers its id.
/// Layers that are there are not downloaded. What an interrupted pull brought is used.
///
/// # Errors
/// [`StoreError`]; nothing of the image is there then but layers and downloads, until they are
/// collected.
pub fn pull(images: &Images, root: &Path, pull: &Pull, told: &mut Told<'_>) -> Result<String> {
    for name in &pull.names {
        crate::store::images::full_name(name)?;
    }
    let _importing = images.images.importing()?;
    let access = pull.access.clone();
    let registry = &Registry::connect(&pull.reference, access.credentials, &access.connection)?;
    let image = registry.image()?;
    let dir = directory(root);
    let work = Work { images, registry, dir: &dir, image: &image };
    let (layers, files) = match pull.lazy {
        Some(lazy) => work.leave(pull, lazy, told)?,
        None => work.fetch(told)?,
    };
    let id = image.config_digest.trim_start_matches("sha256:").to_owned();
    let names = match (&pull.names[..], &pull.reference.name) {
        ([], Some(name)) => vec![name.clone()],
        (names, _) => names.to_vec(),
    };
    let record = Image { id, layers, config: image.config, manifest: image.manifest };
    let id = put(images, record, &names, told)?;
    if pull.reference.digest.is_some() {
        images.images.put_digest_name(&id, &pull.reference.text)?;
    }
    files.keys().try_for_each(|digest| forget(&dir, digest))?;
    Ok(id)
}

/// Downloads by digest.
type Files = HashMap<String, File>;

impl Work<'_> {
    /// Downloads what is not there, and builds the layers.
    fn fetch(&self, told: &mut Told<'_>) -> Result<(Vec<ImageLayer>, Files)> {
        let Self { images, dir, image, .. } = self;
        let mut known = images.images.known_layers(&images.store)?;
        let is_new =
            |layer: &&FoundLayer| layer.index.is_some() || !known.contains_key(&layer.diff_id);
        let wanted: Vec<&FoundLayer> = image.layers.iter().filter(is_new).collect();
        let indexes = wanted.iter().filter_map(|layer| layer.index.as_deref());
        let mut files = self.download_once(indexes, told)?;
        let mut lacking = Vec::new();
        for layer in wanted {
            let index = layer.index.as_ref().and_then(|index| index.digest.as_ref());
            let there = match index.and_then(|digest| files.get(digest)) {
                Some(index) => images.store.is_whole(&id_of(&mut from_start(index, dir)?)?),
                None => false,
            };
            if !there {
                lacking.push(layer);
            }
        }
        files.extend(self.download_once(lacking, told)?);
        let mut open = |layer: &FoundLayer| -> Result<Box<dyn Read>> {
            let lost = || StoreError::Missing { kind: "layer", name: layer.diff_id.clone() };
            let file = layer.digest.as_ref().and_then(|digest| files.get(digest));
            // A layer that comes twice is read twice.
            let file = from_start(file.ok_or_else(lost)?, dir)?;
            Ok(Box::new(file.try_clone().map_err(StoreError::io(dir))?))
        };
        let layers = import_layers(images, &mut open, image, &mut known, told)?;
        Ok((layers, files))
    }

    /// Downloads blobs, each digest once.
    fn download_once<'b>(
        &self,
        blobs: impl IntoIterator<Item = &'b FoundLayer>,
        told: &mut Told<'_>,
    ) -> Result<Files> {
        let mut seen = HashSet::new();
        let blobs: Vec<_> = blobs.into_iter().filter(|blob| seen.insert(&blob.digest)).collect();
        download(self.registry, self.dir, &blobs, told)
    }

    /// Downloads indexes alone.
    fn leave(
        &self,
        pull: &Pull,
        lazy: Lazy,
        told: &mut Told<'_>,
    ) -> Result<(Vec<ImageLayer>, Files)> {
        let Self { images, registry, dir, image } = self;
        let bad = |what: &str| {
            let reference = pull.reference.text.clone();
            StoreError::Registry { reference, what: what.to_owned() }
        };
        let indexes = image.layers.iter().map(|layer| layer.index.as_deref());
        let indexes: Vec<&FoundLayer> = indexes.collect::<Option<_>>().ok_or_else(|| {
            bad("its layers are tars, which come as a whole: pull it without --lazy, or push it \
                 with --compress native")
        })?;
        let files = self.download_once(indexes.iter().copied(), told)?;
        let absolute = |path: &Option<PathBuf>| match path {
            // Whoever reads it works elsewhere.
            Some(path) => std::path::absolute(path).map(Some).map_err(StoreError::io(path)),
            None => Ok(None),
        };
        let mut layers = Vec::new();
        for (layer, index) in image.layers.iter().zip(indexes) {
            let (Some(digest), Some(data)) = (&index.digest, &layer.digest) else {
                return Err(bad("a layer has no digest"));
            };
            // A registry that sends no parts is found out before anybody relies on it.
            registry.part(data, 0, &mut [0])?;
            let origin = Origin {
                reference: pull.reference.text.clone(),
                digest: data.clone(),
                insecure: !pull.access.connection.tls_verify,
                cert_dir: absolute(&pull.access.connection.certs)?,
                authfile: absolute(&pull.access.authfile)?,
                background: lazy == Lazy::Background,
            };
            let file = files.get(digest).ok_or_else(|| bad("an index was lost"))?;
            let mut file = from_start(file, dir)?;
            let index = Stream { from: &mut file, digest };
            let id = images.store.adopt(index, Data::Remote(&origin))?.to_string();
            let (diff_id, digest) = (layer.diff_id.clone(), Some(data.clone()));
            layers.push(ImageLayer { id, diff_id, digest, size: layer.size });
        }
        Ok((layers, files))
    }
}

fn from_start<'f>(mut file: &'f File, dir: &Path) -> Result<&'f File> {
    file.rewind().map_err(StoreError::io(dir))?;
    Ok(file)
}

fn download(
    registry: &Registry,
    dir: &Path,
    wanted: &[&FoundLayer],
    told: &mut Told<'_>,
) -> Result<Files> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let size = wanted.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
    told(&Progress::Download { layers: wanted.len(), size });
    let (queue, done) = (Mutex::new(wanted.iter()), Mutex::new(HashMap::new()));
    let (ended, failure) = (AtomicBool::new(false), Mutex::new(None));
    let (sender, receiver) = mpsc::sync_channel::<i64>(64);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(wanted.len()) {
            let sender = sender.clone();
            let (queue, done, ended, failure) = (&queue, &done, &ended, &failure);
            scope.spawn(move || {
                // Nobody listens any more only when the pull has ended.
                let told = |bytes| sender.send(bytes).unwrap_or_default();
                let transfer = Transfer { registry, dir, ended, told: &told };
                while !ended.load(Ordering::Relaxed) {
                    let Some(layer) = queue.lock().next() else { return };
                    let digest = layer.digest.clone().unwrap_or_default();
                    match transfer.fetch(&digest, layer.size) {
                        Ok(file) => drop(done.lock().insert(digest, file)),
                        Err(error) => {
                            ended.store(true, Ordering::Relaxed);
                            failure.lock().get_or_insert(error);
                        }
                    }
                }
            });
        }
        drop(sender);
        let (mut bytes, mut said) = (0, 0);
        for more in receiver {
            bytes += more;
            if (bytes - said).abs() >= REPORT || u64::try_from(bytes) == Ok(size) {
                said = bytes;
                told(&Progress::Downloaded { bytes: u64::try_from(bytes).unwrap_or(0) });
            }
        }
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(done.into_inner()),
    }
}
