//! Imports into the store: output of `docker save`, `podman save`, `skopeo copy` and tar.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use super::failure::Refusal;
use super::images::{Image, ImageLayer, Images};
use crate::store::error::StoreError;
use crate::store::native::{Data, Stream};
use crate::store::sink::{Body, Meta, Sink};
use crate::store::{Build, DiffId, LayerId, Written};
use crate::transfer::archive::{
    FoundImage, FoundLayer, ImageSource, Input, open_input, open_stream,
};
use crate::transfer::configuration::Configuration;
use crate::transfer::directory::layer_from_directory;
use crate::transfer::error::TransferError;
use crate::transfer::tar::{TarOutcome, layer_from_tar_recorded};
use crate::types::{Digest, Name};

type Result<T> = std::result::Result<T, Refusal>;
type PutResult = std::result::Result<(), StoreError>;

/// Number of bytes between two reports.
pub(super) const REPORT: u64 = 4 << 20;

/// A progress report of an import.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are what the messages name")]
pub enum Progress {
    /// The import of a layer starts; `size` is 0 if it is not known.
    Layer { number: usize, of: usize, layer: String, size: u64 },
    /// This many bytes of the layer were read.
    Read { bytes: u64 },
    /// The download of this many layers starts, with this many bytes in all.
    Download { layers: usize, size: u64 },
    /// This many bytes are there, including those of an earlier attempt.
    Downloaded { bytes: u64 },
    /// The upload of a layer of this many bytes starts.
    Upload { layer: String, size: u64 },
    /// A layer was already in the store.
    Kept { number: usize, of: usize, layer: String },
    /// An image was stored under these names.
    Image { id: String, names: Vec<String> },
}

/// Receives progress reports.
pub type OnProgress<'a> = dyn FnMut(&Progress) + 'a;

/// Counts bytes, and reports them now and then.
pub(super) struct Meter<'a, 'b> {
    bytes: u64,
    said: u64,
    progress: &'a mut OnProgress<'b>,
}

impl<'a, 'b> Meter<'a, 'b> {
    pub(super) fn new(progress: &'a mut OnProgress<'b>) -> Self {
        Self { bytes: 0, said: 0, progress }
    }

    pub(super) fn add(&mut self, len: u64) {
        self.bytes += len;
        if self.bytes - self.said >= REPORT {
            self.end();
        }
    }

    /// Reports what is left.
    fn end(&mut self) {
        if self.said < self.bytes {
            self.said = self.bytes;
            (self.progress)(&Progress::Read { bytes: self.bytes });
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Counts the bytes that pass through a reader or a writer.
pub(super) struct Counted<'a, 'b, I> {
    inner: I,
    meter: Meter<'a, 'b>,
}

impl<'a, 'b, I> Counted<'a, 'b, I> {
    pub(super) fn new(inner: I, progress: &'a mut OnProgress<'b>) -> Self {
        Self { inner, meter: Meter::new(progress) }
    }

    /// Reports what is left, and returns the inner reader or writer.
    pub(super) fn end(mut self) -> I {
        self.meter.end();
        self.inner
    }
}

impl<I: Write> Write for Counted<'_, '_, I> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(buf)?;
        self.meter.add(len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<I: Read> Read for Counted<'_, '_, I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        match len {
            0 => self.meter.end(),
            len => self.meter.add(len as u64),
        }
        Ok(len)
    }
}

/// Imports all images of a docker-archive or OCI layout, or one layer from a tar or a directory,
/// which needs a name. Given names replace those in the archive. Returns the ids.
///
/// # Errors
/// [`Refusal`]; layers that were complete stay until they are collected.
pub fn import(
    images: &Images,
    path: &Path,
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<Vec<String>> {
    for name in names {
        crate::catalog::name::full_name(name)?;
    }
    sized(progress, |progress| {
        let imported = import_from(images, path, names, progress);
        imported.map_err(|error| match error {
            Refusal::Transfer(error) => Refusal::Transfer(error.of(path)),
            Refusal::Store(error) => Refusal::Transfer(TransferError::Store(error).of(path)),
            other => other,
        })
    })
}

/// Adds to an error of a full disk the size of what was written last.
pub(super) fn sized<T>(
    progress: &mut OnProgress<'_>,
    work: impl FnOnce(&mut OnProgress<'_>) -> Result<T>,
) -> Result<T> {
    let mut bytes = 0;
    let done = work(&mut |step| {
        if let Progress::Layer { size, .. } | Progress::Download { size, .. } = step {
            bytes = *size;
        }
        progress(step);
    });
    done.map_err(|error| error.needing(bytes))
}

fn import_from(
    images: &Images,
    path: &Path,
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<Vec<String>> {
    // Opened before the lock is taken, since a pipe may be slow.
    let input = open_input(path, images.store.directory())?;
    let _importing = images.images.importing()?;
    match input {
        Input::Layer { file, size } => {
            let layer = one_tar(images, Box::new(file), size, progress)?;
            finish_single(images, layer, names, progress)
        }
        Input::Directory => {
            let mut build = images.store.build()?;
            let layer = "directory".to_owned();
            progress(&Progress::Layer { number: 1, of: 1, layer, size: 0 });
            let meter = Meter::new(progress);
            let mut counted = CountedSink { sink: &mut build.builder, meter };
            let done = layer_from_directory(path, &mut counted);
            counted.meter.end();
            let (id, _) = publish(images, build, done.map(|_| ()).map_err(Refusal::from))?;
            // No tar stream was read: the id of the layer takes the place of the diff ID.
            let diff_id = DiffId::Tree(id.clone());
            let layer = ImageLayer { id, diff_id, digest: None, size: 0 };
            finish_single(images, layer, names, progress)
        }
        Input::Images(source) => import_archive(images, (path, &source), names, progress),
    }
}

/// Reports how much content a sink has received.
struct CountedSink<'a, 'b> {
    sink: &'a mut dyn Sink,
    meter: Meter<'a, 'b>,
}

impl Sink for CountedSink<'_, '_> {
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> PutResult {
        let len = if let Body::File { size, .. } = &body { *size } else { 0 };
        self.sink.put(path, meta, body)?;
        self.meter.add(len);
        Ok(())
    }

    fn link(&mut self, path: &[Name], to: &[Name]) -> PutResult {
        self.sink.link(path, to)
    }

    fn whiteout(&mut self, path: &[Name]) -> PutResult {
        self.sink.whiteout(path)
    }

    fn opaque(&mut self, path: &[Name]) -> PutResult {
        self.sink.opaque(path)
    }
}

fn publish(images: &Images, build: Build, done: Result<()>) -> Result<(LayerId, Written)> {
    match done {
        Ok(()) => Ok(images.store.publish_written(build)?),
        Err(error) => {
            images.store.abandon(build);
            Err(error)
        }
    }
}

fn read_layer(
    images: &Images,
    inner: Box<dyn Read + '_>,
    progress: &mut OnProgress<'_>,
    check: impl FnOnce(&TarOutcome) -> Result<()>,
) -> Result<(LayerId, TarOutcome)> {
    let recipes = images.store.recipes();
    let mut recipe = recipes.begin()?;
    let mut build = images.store.build()?;
    let input = Counted::new(inner, progress);
    let read = layer_from_tar_recorded(input, &mut build.builder, Some(&mut recipe));
    let recipe = match recipe.finish() {
        Ok(recipe) => recipe,
        Err(error) => {
            images.store.abandon(build);
            return Err(error.into());
        }
    };
    let read = read.map_err(Refusal::from);
    let checked = read.and_then(|outcome| check(&outcome).map(|()| outcome));
    let (outcome, done) = match checked {
        Ok(outcome) => (Some(outcome), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let (id, written) = publish(images, build, done)?;
    let lost = || StoreError::Contradiction { what: "a layer was lost".to_owned() };
    let outcome = outcome.ok_or_else(lost)?;
    let layer = images.store.layer(&id)?;
    recipes.keep(recipe, &DiffId::Tar(outcome.diff_id.clone()), &layer, &written)?;
    Ok((id, outcome))
}

fn one_tar(
    images: &Images,
    input: Box<dyn Read>,
    size: u64,
    progress: &mut OnProgress<'_>,
) -> Result<ImageLayer> {
    progress(&Progress::Layer { number: 1, of: 1, layer: "tar".to_owned(), size });
    let (id, outcome) = read_layer(images, input, progress, is_whole)?;
    let (diff_id, digest) = (DiffId::Tar(outcome.diff_id), outcome.compressed_digest);
    Ok(ImageLayer { id, diff_id, digest: Some(digest), size })
}

fn finish_single(
    images: &Images,
    layer: ImageLayer,
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<Vec<String>> {
    if names.is_empty() {
        let what = "it is a single layer, so the image needs a name: add -t NAME".to_owned();
        return Err(TransferError::Unsupported { what }.into());
    }
    let mut config = Configuration::default();
    config.set_layers(vec![layer.diff_id.to_string()])?;
    config.add_step([("created_by", "lamina image import")]);
    let config = config.into_bytes();
    let id = Digest::sha256(&config).hex().to_owned();
    put(images, Image { id, layers: vec![layer], config, manifest: None }, names, progress)
        .map(|id| vec![id])
}

/// Held while an image gets its record and its names.
static PUTTING: Mutex<()> = Mutex::new(());

/// Waits until no image is half put, and keeps others from being begun. A process that ends by a
/// signal holds it, so that no image without a name stays.
pub fn settled() -> MutexGuard<'static, ()> {
    PUTTING.lock()
}

pub(super) fn put(
    images: &Images,
    image: Image,
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<String> {
    let putting = PUTTING.lock();
    images.images.put(&image, names)?;
    drop(putting);
    progress(&Progress::Image { id: image.id.clone(), names: names.to_vec() });
    Ok(image.id)
}

fn import_archive(
    images: &Images,
    (path, source): (&Path, &ImageSource),
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<Vec<String>> {
    let found = source.images()?;
    if found.len() > 1 && !names.is_empty() {
        let what = format!("{} holds {} images: -t names one only", path.display(), found.len());
        return Err(TransferError::Unsupported { what }.into());
    }
    let mut known = images.known_layers()?;
    let mut ids = Vec::new();
    for image in &found {
        forget_damaged(images, image, &mut known);
        let mut open = |layer: &FoundLayer| Ok(source.layer(layer)?);
        let layers = import_layers(images, &mut open, image, &mut known, progress)?;
        let id = image.config_digest.hex().to_owned();
        let (config, manifest) = (image.config.clone(), image.manifest.clone());
        let names = if names.is_empty() { &image.names } else { names };
        ids.push(put(images, Image { id, layers, config, manifest }, names, progress)?);
    }
    Ok(ids)
}

/// Imports one image whose layers `open` returns.
pub(super) fn import_found<'s>(
    images: &Images,
    open: &mut dyn FnMut(&FoundLayer) -> Result<Box<dyn Read + 's>>,
    image: &FoundImage,
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<String> {
    let _importing = images.images.importing()?;
    let mut known = images.known_layers()?;
    forget_damaged(images, image, &mut known);
    let layers = import_layers(images, open, image, &mut known, progress)?;
    let id = image.config_digest.hex().to_owned();
    let (config, manifest) = (image.config.clone(), image.manifest.clone());
    put(images, Image { id, layers, config, manifest }, names, progress)
}

/// Imports the image with a digest from the stream of an archive.
pub(super) fn import_stream(
    images: &Images,
    (from, expected): (Box<dyn Read>, &Digest),
    names: &[String],
    progress: &mut OnProgress<'_>,
) -> Result<String> {
    let source = match open_stream(from, "archive", images.store.directory())? {
        Input::Images(source) => source,
        Input::Layer { .. } | Input::Directory => {
            let what = "the engine sent no archive of images".to_owned();
            return Err(TransferError::Malformed { what }.into());
        }
    };
    let found = source.images()?;
    let Some(image) = found.iter().find(|image| image.config_digest == *expected) else {
        let what = format!("the archive of the engine does not have the image {expected}");
        return Err(TransferError::Malformed { what }.into());
    };
    let mut open = |layer: &FoundLayer| Ok(source.layer(layer)?);
    import_found(images, &mut open, image, names, progress)
}

/// Removes damaged layers of an image from the known ones, so that they are built again and
/// replaced.
pub(super) fn forget_damaged(
    images: &Images,
    image: &FoundImage,
    known: &mut HashMap<Digest, ImageLayer>,
) {
    for found in &image.layers {
        if known.get(&found.diff_id).is_some_and(|there| !is_intact(images, there)) {
            known.remove(&found.diff_id);
        }
    }
}

fn is_intact(images: &Images, layer: &ImageLayer) -> bool {
    let is_readable = |open: std::sync::Arc<crate::store::Layer>| {
        images.store.recipes().is_readable(&layer.diff_id, &open)
    };
    images.store.is_sound(&layer.id) && images.store.layer(&layer.id).is_ok_and(is_readable)
}

/// Builds the layers of an image that are not known yet, from the streams that `open` returns.
pub(super) fn import_layers<'s>(
    images: &Images,
    open: &mut dyn FnMut(&FoundLayer) -> Result<Box<dyn Read + 's>>,
    image: &FoundImage,
    known: &mut HashMap<Digest, ImageLayer>,
    progress: &mut OnProgress<'_>,
) -> Result<Vec<ImageLayer>> {
    let of = image.layers.len();
    let mut layers = Vec::with_capacity(of);
    for (at, layer) in image.layers.iter().enumerate() {
        let (number, name) = (at + 1, layer.diff_id.to_string());
        if let Some(index) = &layer.index {
            progress(&Progress::Layer { number, of, layer: name, size: layer.size });
            layers.push(adopted(images, open, index, layer, progress)?);
            continue;
        }
        if let Some(there) = known.get(&layer.diff_id) {
            progress(&Progress::Kept { number, of, layer: name });
            layers.push(there.clone());
            continue;
        }
        progress(&Progress::Layer { number, of, layer: name, size: layer.size });
        let check = |outcome: &TarOutcome| expected(layer, outcome);
        let (id, outcome) = read_layer(images, open(layer)?, progress, check)?;
        let digest = Some(outcome.compressed_digest);
        let diff_id = DiffId::Tar(layer.diff_id.clone());
        let made = ImageLayer { id, diff_id, digest, size: layer.size };
        known.insert(layer.diff_id.clone(), made.clone());
        layers.push(made);
    }
    Ok(layers)
}

/// Adds a layer in Lamina's own form.
fn adopted<'s>(
    images: &Images,
    open: &mut dyn FnMut(&FoundLayer) -> Result<Box<dyn Read + 's>>,
    index: &FoundLayer,
    layer: &FoundLayer,
    progress: &mut OnProgress<'_>,
) -> Result<ImageLayer> {
    let mut from = open(index)?;
    let size = index.size;
    let nameless = || TransferError::Malformed { what: "a layer has no digest".to_owned() };
    let digest = index.digest.as_ref().ok_or_else(nameless)?;
    let index = Stream { from: &mut from, digest, size };
    let digest = layer.digest.as_ref().ok_or_else(nameless)?;
    let mut progress = Some(progress);
    let mut open = || -> std::result::Result<Box<dyn Read + '_>, StoreError> {
        let twice = || StoreError::Contradiction { what: digest.to_string() };
        let progress = progress.take().ok_or_else(twice)?;
        let inner = open(layer).map_err(StoreError::elsewhere)?;
        Ok(Box::new(Counted::new(inner, progress)))
    };
    let data = Data::Whole { open: &mut open, digest, size: layer.size };
    let id = images.store.adopt(index, data)?;
    let (diff_id, digest) = (DiffId::Tar(layer.diff_id.clone()), Some(digest.clone()));
    Ok(ImageLayer { id, diff_id, digest, size: layer.size })
}

// There is no digest that could distinguish a whole archive from one that was cut between two
// members. GNU tar and Go accept both, but always write an end marker.
fn is_whole(outcome: &TarOutcome) -> Result<()> {
    if outcome.end_marked {
        return Ok(());
    }
    if outcome.entries == 0 {
        let what = "the archive is empty: it has no member and no end".to_owned();
        return Err(TransferError::Malformed { what }.into());
    }
    let what = "the archive is truncated, or its writer forgot the end: no block of zeros follows \
                its last member";
    Err(TransferError::Malformed { what: what.to_owned() }.into())
}

// Compares the digests of the stream with those in the image.
fn expected(layer: &FoundLayer, outcome: &TarOutcome) -> Result<()> {
    if layer.diff_id != outcome.diff_id {
        let (expected, found) = (layer.diff_id.clone(), outcome.diff_id.clone());
        return Err(TransferError::Other { kind: "layer", expected, found }.into());
    }
    match &layer.digest {
        Some(digest) if digest.is_sha256() && *digest != outcome.compressed_digest => {
            let (expected, found) = (digest.clone(), outcome.compressed_digest.clone());
            Err(TransferError::Other { kind: "blob", expected, found }.into())
        }
        _ => Ok(()),
    }
}
