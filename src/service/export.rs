//! Export of images from the store: docker-archives and OCI layouts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::failure::Refusal;
use super::images::{Image, ImageLayer, Images};
use super::import::{Counted, OnProgress, Progress};
use crate::catalog::name::full_name;
use crate::error::FromHost;
use crate::store::error::StoreError;
use crate::store::packed::PackedLayer;
use crate::store::{DiffId, LayerId};
use crate::sys;
use crate::transfer::configuration::Configuration;
use crate::transfer::error::TransferError;
use crate::transfer::export::documents::{Documents, listed_blob, tar_name};
use crate::transfer::export::{Compression, DATA_TYPE, Digested, diff_id, write_layer};
use crate::types::Digest;

pub use crate::transfer::export::{Compression as LayerCompression, DirTarget, TarTarget, Target};

type Result<T> = std::result::Result<T, Refusal>;

/// The form in which an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As written by `docker save`; layers are not compressed.
    Docker,
    /// An OCI layout.
    Oci(LayerCompression),
    /// An OCI layout with layers in Lamina's own form, which can be mounted before all data is
    /// there.
    Native,
}

struct Exporter<'a, 'b> {
    images: &'a Images,
    form: Form,
    target: Box<dyn Target>,
    done: HashMap<(LayerId, DiffId), PackedLayer>,
    documents: Documents,
    progress: &'a mut OnProgress<'b>,
}

/// Writes images to a target. Returns their ids there, which are equal to the ids here if every
/// layer is written as it was imported.
///
/// # Errors
/// `Missing` of [`Refusal::Catalog`]; errors of the target.
pub fn export(
    images: &Images,
    names: &[String],
    form: Form,
    target: Box<dyn Target>,
    progress: &mut OnProgress<'_>,
) -> Result<Vec<String>> {
    let kept = images.images.importing()?;
    let mut all_names = images.images.names()?;
    let (done, documents) = (HashMap::new(), documents_of(form));
    let mut exporter = Exporter { images, form, target, done, documents, progress };
    let mut chosen: Vec<(Image, Vec<String>)> = Vec::new();
    for name in names {
        let (image, name) = images.images.find_named(name)?;
        let known = all_names.entry(image.id.clone()).or_default();
        let asked = full_name(&name).ok().filter(|name| known.contains(name));
        let tags = asked.map_or_else(|| known.clone(), |name| vec![name]);
        match chosen.iter_mut().find(|(other, _)| other.id == image.id) {
            Some((_, more)) => {
                more.extend(tags);
                more.sort();
                more.dedup();
            }
            None => chosen.push((image, tags)),
        }
    }
    // An open layer is not collected, so the lock need not be held while the target is written.
    let layers = chosen.iter().flat_map(|(image, _)| &image.layers);
    let _held = layers.map(|layer| Ok(images.store.layer(&layer.id)?));
    let _held: Vec<_> = _held.collect::<Result<_>>()?;
    drop(kept);
    let mut ids = Vec::new();
    for (image, tags) in chosen {
        let layers = exporter.layers(&image)?;
        let config = config_with(&image, &layers)?;
        let id = Digest::sha256(&config).hex().to_owned();
        exporter.documents.add(&mut *exporter.target, &config, &layers, tags.clone())?;
        (exporter.progress)(&Progress::Image { id: id.clone(), names: tags });
        ids.push(id);
    }
    exporter.documents.finish(&mut *exporter.target)?;
    exporter.target.finish()?;
    Ok(ids)
}

/// The configuration with the diff IDs that were written; the original bytes if they are equal.
fn config_with(image: &Image, layers: &[PackedLayer]) -> Result<Vec<u8>> {
    let written: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
    if image.layers.iter().map(|layer| layer.diff_id.tar()).eq(written.iter().copied().map(Some)) {
        return Ok(image.config.clone());
    }
    let bad = || {
        let what = format!("the configuration of image {} is not a JSON object", image.id);
        Refusal::from(TransferError::Malformed { what })
    };
    let mut config = Configuration::parse(&image.config).ok_or_else(bad)?;
    config.set_layers(written.iter().map(ToString::to_string).collect())?;
    Ok(config.into_bytes())
}

/// The empty documents of a form.
const fn documents_of(form: Form) -> Documents {
    match form {
        Form::Docker => Documents::docker(),
        Form::Oci(compression) => Documents::oci(compression.media_type()),
        Form::Native => Documents::oci(DATA_TYPE),
    }
}

/// The name of a form in the records of packed layers; `None` for a form without records.
const fn form_of(form: Form) -> Option<&'static str> {
    match form {
        Form::Docker => None,
        Form::Oci(compression) => Some(compression.name()),
        Form::Native => Some("native"),
    }
}

/// The blob from which the layer was imported, if it has this form.
fn as_it_came(image: &Image, layer: &ImageLayer, form: &str) -> Option<PackedLayer> {
    let digest = layer.digest.as_ref().filter(|digest| digest.is_sha256())?;
    let (kind, size) = listed_blob(image.manifest.as_deref()?, digest)?;
    let is_form = match form {
        "none" => kind.ends_with(".tar"),
        // OCI uses `+gzip`, Docker uses `.gzip`.
        _ => kind.ends_with(form),
    };
    let diff_id = layer.diff_id.tar()?.clone();
    let (asked, digest) = (layer.diff_id.clone(), digest.clone());
    is_form.then_some(PackedLayer { asked, diff_id, digest, size, index: None })
}

impl Exporter<'_, '_> {
    fn layers(&mut self, image: &Image) -> Result<Vec<PackedLayer>> {
        let of = image.layers.len();
        let mut written = Vec::with_capacity(of);
        for (at, layer) in image.layers.iter().enumerate() {
            let (number, name) = (at + 1, layer.diff_id.to_string());
            let key = (layer.id.clone(), layer.diff_id.clone());
            if let Some(done) = self.done.get(&key) {
                (self.progress)(&Progress::Kept { number, of, layer: name });
                written.push(done.clone());
                continue;
            }
            let there = self.there(image, layer)?;
            let done = if let Some(there) = there {
                (self.progress)(&Progress::Kept { number, of, layer: name });
                there
            } else {
                let size = self.images.store.layer(&layer.id)?.data_bytes();
                (self.progress)(&Progress::Layer { number, of, layer: name, size });
                self.write(layer)?
            };
            self.done.insert(key, done.clone());
            written.push(done);
        }
        Ok(written)
    }

    /// Writes a layer and records its digests.
    fn write(&mut self, layer: &ImageLayer) -> Result<PackedLayer> {
        let done = match self.form {
            Form::Native => self.native(layer)?,
            _ => self.layer(layer)?,
        };
        if let Some(form) = form_of(self.form) {
            self.images.store.packed().keep(&layer.id, form, &done);
        }
        Ok(done)
    }

    /// The blob of a layer in the target, if it is there: as written last, or as imported.
    fn there(&mut self, image: &Image, layer: &ImageLayer) -> Result<Option<PackedLayer>> {
        let Some(form) = form_of(self.form) else { return Ok(None) };
        let known = self.images.store.packed().find(&layer.id, &layer.diff_id, form);
        let came = (self.form != Form::Native).then(|| as_it_came(image, layer, form)).flatten();
        for packed in known.into_iter().chain(came) {
            let index = packed.index.iter().map(|(digest, _)| digest);
            let mut is_there = true;
            for digest in index.chain([&packed.digest]) {
                is_there = is_there && self.target.has(&digest.part())?;
            }
            if is_there {
                return Ok(Some(packed));
            }
        }
        Ok(None)
    }

    fn layer(&mut self, layer: &ImageLayer) -> Result<PackedLayer> {
        let store = &self.images.store;
        let open = store.layer(&layer.id)?;
        let spool = sys::file::unnamed(store.directory(), 0o600);
        let spool = spool.map_err(StoreError::host(store.directory()))?;
        let refused = StoreError::io;
        let mut out = Digested::new(BufWriter::with_capacity(1 << 20, spool));
        let recipes = store.recipes();
        let at = store.directory();
        let compression = match self.form {
            Form::Oci(compression) => compression,
            Form::Docker | Form::Native => Compression::None,
        };
        let tar = |out: &mut dyn Write, progress: &mut OnProgress<'_>| -> Result<Digest> {
            let mut out = Counted::new(out, progress);
            let diff_id = write_layer(recipes, &open, &layer.diff_id, &mut out)?;
            out.end();
            Ok(diff_id)
        };
        let diff_id = match compression {
            Compression::None => tar(&mut out, self.progress)?,
            Compression::Gzip => {
                let mut packed =
                    flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
                let diff_id = tar(&mut packed, self.progress)?;
                packed.finish().map_err(refused(at))?;
                diff_id
            }
            Compression::Zstd => {
                let packed = zstd::stream::write::Encoder::new(&mut out, 3);
                let mut packed = packed.map_err(refused(at))?;
                let diff_id = tar(&mut packed, self.progress)?;
                packed.finish().map_err(refused(at))?;
                diff_id
            }
        };
        out.flush().map_err(refused(at))?;
        let (digest, size, out) = out.finish();
        let spool = out.into_inner().map_err(|error| refused(at)(error.into_error()))?;
        self.put(&diff_id, &digest, spool, size)?;
        let asked = layer.diff_id.clone();
        Ok(PackedLayer { asked, diff_id, digest, size, index: None })
    }

    /// Writes the two files of a layer unchanged.
    fn native(&mut self, layer: &ImageLayer) -> Result<PackedLayer> {
        let store = &self.images.store;
        let id = layer.id.clone();
        let open = store.layer(&id)?;
        let at = store.directory();
        open.complete(&mut |_| true).map_err(StoreError::host(at))?;
        let diff_id = match &layer.diff_id {
            DiffId::Tar(digest) => digest.clone(),
            DiffId::Tree(_) => diff_id(&open)?,
        };
        let refused = StoreError::io;
        let [mut index, mut data] = store.files(&id)?;
        let spool = sys::file::unnamed(at, 0o600).map_err(StoreError::host(at))?;
        let out = Digested::new(BufWriter::with_capacity(1 << 20, spool));
        let mut packed = zstd::stream::write::Encoder::new(out, 3).map_err(refused(at))?;
        io::copy(&mut index, &mut packed).map_err(refused(at))?;
        let mut out = packed.finish().map_err(refused(at))?;
        out.flush().map_err(refused(at))?;
        let (index, index_size, out) = out.finish();
        let spool = out.into_inner().map_err(|error| refused(at)(error.into_error()))?;
        let mut sum = Digested::new(io::sink());
        io::copy(&mut data, &mut sum).map_err(refused(at))?;
        let (digest, size, _) = sum.finish();
        self.put(&diff_id, &index, spool, index_size)?;
        self.put(&diff_id, &digest, data, size)?;
        let (asked, index) = (layer.diff_id.clone(), Some((index, index_size)));
        Ok(PackedLayer { asked, diff_id, digest, size, index })
    }

    fn put(&mut self, diff_id: &Digest, digest: &Digest, spool: File, size: u64) -> Result<()> {
        let name = match self.form {
            Form::Docker => tar_name(diff_id),
            Form::Oci(_) | Form::Native => digest.part(),
        };
        (self.progress)(&Progress::Upload { layer: digest.to_string(), size });
        Ok(self.target.file(&name, spool, size)?)
    }
}
