//! Pulls: an image of a registry into the store.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;

use super::images::{Image, Images, StoreError};
use super::import::{Progress, Told, import_layers, put};
use crate::store::import::FoundLayer;
use crate::store::pull::Registry;
use crate::store::pull::transfer::{Transfer, directory, forget};

pub use crate::store::pull::auth::Credentials;
pub use crate::store::pull::connection::Connection;
pub use crate::store::pull::reference::Reference;

type Result<T> = std::result::Result<T, StoreError>;

/// Most layers that are downloaded at once.
const PARALLEL: usize = 3;
/// Bytes between two reports.
const REPORT: i64 = 1 << 20;

/// What is pulled, and how.
pub struct Pull {
    /// Which image.
    pub reference: Reference,
    /// Its names in the store; none: that of the reference.
    pub names: Vec<String>,
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// How the registry is reached.
    pub connection: Connection,
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
    let registry = Registry::connect(&pull.reference, pull.credentials.clone(), &pull.connection)?;
    let image = registry.image()?;
    let mut known = images.images.known_layers(&images.store)?;
    let mut seen = HashSet::new();
    let wanted = image.layers.iter().filter(|layer| !known.contains_key(&layer.diff_id));
    let wanted: Vec<&FoundLayer> = wanted.filter(|layer| seen.insert(&layer.diff_id)).collect();
    let dir = directory(root);
    let files = download(&registry, &dir, &wanted, told)?;
    let mut open = |layer: &FoundLayer| -> Result<Box<dyn Read>> {
        let lost = || StoreError::Missing { kind: "layer", name: layer.diff_id.clone() };
        let file = layer.digest.as_ref().and_then(|digest| files.get(digest)).ok_or_else(lost)?;
        Ok(Box::new(file.try_clone().map_err(StoreError::io(&dir))?))
    };
    let layers = import_layers(images, &mut open, &image, &mut known, told)?;
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

fn download(
    registry: &Registry<'_>,
    dir: &Path,
    wanted: &[&FoundLayer],
    told: &mut Told<'_>,
) -> Result<HashMap<String, File>> {
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
