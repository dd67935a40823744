//! Pull: an image from a registry into the store.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;

use super::failure::Refusal;
use super::images::{Image, ImageLayer, Images};
use super::import::{OnProgress, Progress, forget_damaged, import_layers, put, sized};
use crate::catalog::images::Importing;
use crate::error::FromHost;
use crate::store::DiffId;
use crate::store::error::StoreError;
use crate::store::fetch::Origin;
use crate::store::native::{Data, Stream, id_of};
use crate::transfer::archive::{FoundImage, FoundLayer};
use crate::transfer::registry::Registry;
use crate::transfer::registry::download::{Transfer, directory, forget};
use crate::types::Digest;

pub use crate::transfer::error::TransferError;
pub use crate::transfer::registry::access::{Access, AccessOptions};
pub use crate::transfer::registry::reference::Reference;

type Result<T> = std::result::Result<T, Refusal>;

/// The number of layers that are downloaded in parallel.
const PARALLEL: usize = 3;
/// Number of bytes between two reports.
const REPORT: i64 = 1 << 20;

/// The time at which the data of layers in Lamina's own form is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lazy {
    /// Parts that are read at once, the rest by a mount of the image while there are no reads.
    Background,
    /// Only on read.
    Demand,
}

/// The parameters of a pull.
pub struct Pull {
    /// The image.
    pub reference: Reference,
    /// The names in the store; if empty, the name in the reference.
    pub names: Vec<String>,
    /// The credentials and the connection.
    pub access: Access,
    /// Whether layers in Lamina's own form stay in the registry, and when their data is fetched.
    pub lazy: Option<Lazy>,
}

/// A running pull.
struct Work<'a> {
    images: &'a Images,
    registry: &'a Registry,
    dir: &'a Path,
    image: &'a FoundImage,
}

/// Pulls an image into the data root `root`, whose images are `images`. Returns its id. Layers that
/// already exist are not downloaded, and the downloads of an interrupted pull are continued.
///
/// # Errors
/// [`Refusal`]; then only layers and downloads of the image may be left, until they are collected.
pub fn pull(
    images: &Images,
    root: &Path,
    pull: &Pull,
    progress: &mut OnProgress<'_>,
) -> Result<String> {
    for name in &pull.names {
        crate::catalog::name::full_name(name)?;
    }
    let access = pull.access.clone();
    let registry = &Registry::connect(&pull.reference, access.credentials, &access.connection)?;
    let image = registry.image()?;
    let dir = directory(root);
    let work = Work { images, registry, dir: &dir, image: &image };
    // The lock is held from the first layer that is built to the record, and never during a wait
    // for a registry, since a collection waits for it.
    let pulled = sized(progress, |progress| match pull.lazy {
        Some(lazy) => work.leave(pull, lazy, progress),
        None => work.fetch(progress),
    });
    let Pulled { layers, files, importing } = pulled?;
    let id = image.config_digest.hex().to_owned();
    let names = match (&pull.names[..], &pull.reference.name) {
        ([], Some(name)) => vec![name.clone()],
        (names, _) => names.to_vec(),
    };
    let record = Image { id, layers, config: image.config, manifest: image.manifest };
    let id = put(images, record, &names, progress)?;
    if pull.reference.digest.is_some() {
        images.images.put_digest_name(&id, &pull.reference.text)?;
    }
    drop(importing);
    files.keys().try_for_each(|digest| forget(&dir, digest))?;
    Ok(id)
}

/// Downloaded files by digest.
type Files = HashMap<Digest, File>;
/// Layers of the store by diff ID.
type Known = HashMap<Digest, ImageLayer>;

/// The layers of an image without a record.
struct Pulled {
    layers: Vec<ImageLayer>,
    files: Files,
    importing: Importing,
}

fn is_in(files: &Files, layer: &FoundLayer) -> bool {
    layer.digest.as_ref().is_some_and(|digest| files.contains_key(digest))
}

impl Work<'_> {
    /// Downloads the missing blobs and builds the layers.
    fn fetch(&self, progress: &mut OnProgress<'_>) -> Result<Pulled> {
        let Self { images, dir, image, .. } = self;
        let mut files = Files::new();
        let mut known = images.known_layers()?;
        forget_damaged(images, image, &mut known);
        loop {
            self.download_missing(&known, &mut files, progress)?;
            let importing = images.images.importing()?;
            // A collection may have removed layers in the meantime.
            let there = images.known_layers()?;
            known.retain(|diff_id, _| there.contains_key(diff_id));
            if !self.missing(&known, &files)?.is_empty() {
                continue;
            }
            let mut open = |layer: &FoundLayer| -> Result<Box<dyn Read>> {
                let lost =
                    || StoreError::Missing { kind: "layer", name: layer.diff_id.to_string() };
                let file = layer.digest.as_ref().and_then(|digest| files.get(digest));
                // A repeated layer is read twice.
                let file = from_start(file.ok_or_else(lost)?, dir)?;
                Ok(Box::new(file.try_clone().map_err(StoreError::io(dir))?))
            };
            let layers = import_layers(images, &mut open, image, &mut known, progress)?;
            return Ok(Pulled { layers, files, importing });
        }
    }

    fn download_missing(
        &self,
        known: &Known,
        files: &mut Files,
        progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        let new = self.image.layers.iter().filter(|layer| !known.contains_key(&layer.diff_id));
        let indexes = new.filter_map(|layer| layer.index.as_deref());
        let is_new = |layer: &&FoundLayer| !is_in(files, layer);
        let indexes: Vec<&FoundLayer> = indexes.filter(is_new).collect();
        files.extend(self.download_once(indexes, progress)?);
        let missing = self.missing(known, files)?;
        files.extend(self.download_once(missing, progress)?);
        Ok(())
    }

    /// The layers that are neither in the store nor downloaded.
    fn missing(&self, known: &Known, files: &Files) -> Result<Vec<&FoundLayer>> {
        let mut missing = Vec::new();
        for layer in &self.image.layers {
            let there = match &layer.index {
                _ if is_in(files, layer) => true,
                None => known.contains_key(&layer.diff_id),
                Some(index) => match index.digest.as_ref().and_then(|one| files.get(one)) {
                    Some(index) => {
                        let id = id_of(&mut from_start(index, self.dir)?)?;
                        self.images.store.is_whole(&id)
                    }
                    None => false,
                },
            };
            if !there {
                missing.push(layer);
            }
        }
        Ok(missing)
    }

    /// Downloads blobs, each digest once.
    fn download_once<'b>(
        &self,
        blobs: impl IntoIterator<Item = &'b FoundLayer>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Files> {
        let mut seen = HashSet::new();
        let blobs: Vec<_> = blobs.into_iter().filter(|blob| seen.insert(&blob.digest)).collect();
        download(self.registry, self.dir, &blobs, progress)
    }

    /// Downloads only the indexes.
    fn leave(&self, pull: &Pull, lazy: Lazy, progress: &mut OnProgress<'_>) -> Result<Pulled> {
        let Self { images, registry, dir, image } = self;
        let bad = |what: &str| {
            let reference = pull.reference.text.clone();
            Refusal::from(TransferError::Registry { reference, what: what.to_owned() })
        };
        let indexes = image.layers.iter().map(|layer| layer.index.as_deref());
        let indexes: Vec<&FoundLayer> = indexes.collect::<Option<_>>().ok_or_else(|| {
            bad("its layers are tars, which come as a whole: pull it without --lazy, or push it \
                 with --compress native")
        })?;
        let files = self.download_once(indexes.iter().copied(), progress)?;
        let absolute = |path: &Option<PathBuf>| match path {
            // A mount that reads it later has another working directory.
            Some(path) => std::path::absolute(path).map(Some).map_err(StoreError::io(path)),
            None => Ok(None),
        };
        for layer in &image.layers {
            let data = layer.digest.as_ref().ok_or_else(|| bad("a layer has no digest"))?;
            // Finds out now whether the registry supports ranges, before a mount depends on it.
            registry.part(data, 0, &mut [0])?;
        }
        let importing = images.images.importing()?;
        let mut layers = Vec::new();
        for (layer, index) in image.layers.iter().zip(indexes) {
            let (Some(digest), Some(data)) = (&index.digest, &layer.digest) else {
                return Err(bad("a layer has no digest"));
            };
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
            let index = Stream { from: &mut file, digest, size: index.size };
            let id = images.store.adopt(index, Data::Remote(&origin, layer.size))?;
            let (diff_id, digest) = (DiffId::Tar(layer.diff_id.clone()), Some(data.clone()));
            layers.push(ImageLayer { id, diff_id, digest, size: layer.size });
        }
        Ok(Pulled { layers, files, importing })
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
    progress: &mut OnProgress<'_>,
) -> Result<Files> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let size = wanted.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
    progress(&Progress::Download { layers: wanted.len(), size });
    let (queue, done) = (Mutex::new(wanted.iter()), Mutex::new(HashMap::new()));
    let (ended, failure) = (AtomicBool::new(false), Mutex::new(None));
    let (sender, receiver) = mpsc::sync_channel::<i64>(64);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(wanted.len()) {
            let sender = sender.clone();
            let (queue, done, ended, failure) = (&queue, &done, &ended, &failure);
            scope.spawn(move || {
                // The receiver is gone only when the pull has ended.
                let progress = |bytes| sender.send(bytes).unwrap_or_default();
                let transfer = Transfer { registry, dir, ended, progress: &progress };
                while !ended.load(Ordering::Relaxed) {
                    let Some(layer) = queue.lock().next() else { return };
                    let what = "a layer has no digest".to_owned();
                    let nameless = || TransferError::Malformed { what };
                    let digest = layer.digest.clone().ok_or_else(nameless);
                    let fetched = digest.and_then(|digest| {
                        transfer.fetch(&digest, layer.size).map(|file| (digest, file))
                    });
                    match fetched {
                        Ok((digest, file)) => drop(done.lock().insert(digest, file)),
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
                progress(&Progress::Downloaded { bytes: u64::try_from(bytes).unwrap_or(0) });
            }
        }
    });
    match failure.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(done.into_inner()),
    }
}
