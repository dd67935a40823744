//! Images in archives of `docker save` and `podman save` and in OCI image layouts.
//!
//! An archive is a tar whose parts are read where they lie: one pass notes where each is. A
//! compressed archive or one from a pipe is first written to a file without a name. Manifests and
//! configurations are checked against the digests that name them; of layers the expected digests
//! are given, for whoever reads them.
//!
//! Formats: OCI image specification 1.1 (`image-layout.md`, `manifest.md`, `image-index.md`), and
//! Docker's `image/spec/v1.2.md`, "Combined Image JSON + Filesystem Changeset Format".

use std::io::{BufReader, Read};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::stream;
use crate::store::error::StoreError;
use crate::types::Digest;

mod docker;
mod kind;
mod oci;
mod parts;
mod spool;
#[cfg(test)]
mod testing;

pub use kind::{Input, open_input};

pub(in crate::store) use oci::image_of_registry;

use parts::Parts;

/// Longest manifest or index, as registries limit them.
const MANIFEST_MAX: u64 = 4 << 20;

/// Most bytes of manifests and configurations of one archive.
const DOCUMENTS_MAX: usize = 64 << 20;

/// Longest configuration of an image.
const CONFIG_MAX: u64 = 8 << 20;

/// An archive or layout with images.
pub struct ImageSource {
    parts: Parts,
}

/// An image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// As the archive names it: with `docker save` a whole reference, in an OCI layout whatever
    /// its maker chose, often only a tag; none for an image without a name.
    pub names: Vec<String>,
    /// The OCI or Docker manifest, where the archive has one.
    pub manifest: Option<Vec<u8>>,
    /// The configuration, to the byte.
    pub config: Vec<u8>,
    /// `sha256:` and 64 digits: the ID of the image.
    pub config_digest: String,
    /// From the lowest up.
    pub layers: Vec<FoundLayer>,
}

/// A layer of an image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayer {
    /// As the manifest states it.
    pub media_type: Option<String>,
    /// Digest of the bytes that [`ImageSource::layer`] gives, where the archive states it. A
    /// `sha256:` is left to whoever reads them; any other is verified by the reader.
    pub digest: Option<String>,
    /// `sha256:` and 64 digits: the digest of the uncompressed tar.
    pub diff_id: String,
    /// Bytes that [`ImageSource::layer`] gives.
    pub size: u64,
    /// Of a layer in our own form: its index. The digest above is that of its data.
    pub index: Option<Box<FoundLayer>>,
    /// Which part of the archive it is.
    part: String,
}

impl ImageSource {
    /// The images. Of several platforms of one image it is that of this host.
    ///
    /// # Errors
    /// [`StoreError::Archive`] where a manifest is missing, too long, malformed or contradicts
    /// itself, or where a part does not have the digest that names it.
    pub fn images(&self) -> Result<Vec<FoundImage>, StoreError> {
        if let Some(raw) = self.parts.read("manifest.json", MANIFEST_MAX)? {
            let mut images = docker::images(&self.parts, &raw)?;
            self.add_manifests(&mut images);
            return Ok(images);
        }
        if let Some(raw) = self.parts.read("oci-layout", MANIFEST_MAX)? {
            return oci::images(&self.parts, &raw);
        }
        Err(stream::archive(
            "this is no image archive: it has neither manifest.json (docker save, podman save) \
             nor oci-layout (OCI image layout)",
        ))
    }

    // Newer archives of `docker save` are OCI layouts too, and only those have manifests. One is
    // kept if it names the same configuration and the same bytes of layers.
    fn add_manifests(&self, images: &mut [FoundImage]) {
        let layout = self.parts.read("oci-layout", MANIFEST_MAX);
        let found = match layout {
            Ok(Some(raw)) => oci::images(&self.parts, &raw),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "manifests of an archive are not kept");
                return;
            }
        };
        for image in images {
            let same = |other: &&FoundImage| {
                let digests = |image: &FoundImage| -> Vec<_> {
                    image.layers.iter().map(|layer| layer.digest.clone()).collect()
                };
                other.config_digest == image.config_digest && digests(other) == digests(image)
            };
            image.manifest = found.iter().find(same).and_then(|other| other.manifest.clone());
        }
    }

    /// The bytes of a layer as the archive holds them, perhaps compressed, for
    /// [`layer_from_tar`](super::layer_from_tar).
    ///
    /// # Errors
    /// [`StoreError::Archive`] where the archive does not have it.
    pub fn layer(&self, layer: &FoundLayer) -> Result<Box<dyn Read + '_>, StoreError> {
        let part = self.parts.find(&layer.part)?.ok_or_else(|| missing(&layer.part))?;
        let part = BufReader::with_capacity(super::READ_BYTES, part);
        let stated = layer.digest.as_deref().map(Digest::parse).transpose()?;
        Ok(match stated {
            Some(digest) if !digest.is_sha256() => Box::new(digest.verify(part)),
            _ => Box::new(part),
        })
    }
}

/// Collects images until their documents are too many: a manifest of 4 MiB can name one
/// configuration ten thousand times.
fn bounded(
    images: impl Iterator<Item = Result<FoundImage, StoreError>>,
) -> Result<Vec<FoundImage>, StoreError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for image in images {
        let image = image?;
        bytes += image.config.len() + image.manifest.as_ref().map_or(0, Vec::len);
        if bytes > DOCUMENTS_MAX {
            return Err(stream::archive("manifests and configurations have more than 64 MiB"));
        }
        found.push(image);
    }
    Ok(found)
}

fn missing(part: &str) -> StoreError {
    let part = super::path::shown(part.as_bytes());
    StoreError::Archive { what: format!("the archive lacks {part}, which its manifest names") }
}

fn json<T: DeserializeOwned>(part: &str, raw: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(raw).map_err(|error| StoreError::Archive {
        what: format!("{} is malformed: {error}", super::path::shown(part.as_bytes())),
    })
}

/// Of an image configuration, what says how many layers belong to it.
#[derive(Deserialize)]
struct Config {
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

/// The diff IDs of a configuration, as many as there are layers.
fn diff_ids(part: &str, config: &[u8], layers: usize) -> Result<Vec<String>, StoreError> {
    let shown = super::path::shown(part.as_bytes());
    let wrong = |what: String| StoreError::Archive { what: format!("{shown}: {what}") };
    let Some(rootfs) = json::<Config>(part, config)?.rootfs else {
        return Err(wrong("this is no configuration of an image: it has no rootfs".to_owned()));
    };
    let ids = rootfs.diff_ids.unwrap_or_default();
    if ids.len() != layers {
        let what = format!("{} diff IDs, but the manifest has {layers} layers", ids.len());
        return Err(wrong(what));
    }
    for id in &ids {
        if !Digest::parse(id)?.is_sha256() {
            return Err(wrong("diff IDs other than sha256 are not supported".to_owned()));
        }
    }
    Ok(ids)
}
