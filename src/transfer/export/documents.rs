//! The documents of exported images: configurations, manifests, and the lists of images.

use super::{INDEX_TYPE, Target};
use crate::format::oci::{CONFIG, Descriptor, Index, Layout, Listed, MANIFEST, Manifest};
use crate::store::packed::PackedLayer;
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

/// The documents of a target. The list of all images is written last.
pub(crate) enum Documents {
    /// The images of a docker-archive.
    Docker(Vec<Listed>),
    /// The images of an OCI layout.
    Oci {
        /// The media type of the layers.
        layer_type: &'static str,
        /// The descriptors of the manifests.
        manifests: Vec<Descriptor>,
    },
}

impl Documents {
    /// Starts the documents of a docker-archive.
    #[must_use]
    pub(crate) const fn docker() -> Self {
        Self::Docker(Vec::new())
    }

    /// Starts the documents of an OCI layout with layers of this media type.
    #[must_use]
    pub(crate) const fn oci(layer_type: &'static str) -> Self {
        Self::Oci { layer_type, manifests: Vec::new() }
    }

    /// Writes the configuration and the manifest of an image whose layers are already written.
    ///
    /// # Errors
    /// Errors of the target.
    pub(crate) fn add(
        &mut self,
        target: &mut dyn Target,
        config: &[u8],
        layers: &[PackedLayer],
        tags: Vec<String>,
    ) -> Result<()> {
        match self {
            Self::Docker(images) => {
                let name = format!("{}.json", Digest::sha256(config).hex());
                target.bytes(&name, config)?;
                let layers = layers.iter().map(|layer| tar_name(&layer.diff_id)).collect();
                let listed = Listed { config: name, repo_tags: Some(tags), layers: Some(layers) };
                images.push(listed);
            }
            Self::Oci { layer_type, manifests } => {
                let config = blob(target, CONFIG, config)?;
                let layers = layers.iter().flat_map(|layer| descriptors(layer, layer_type));
                let manifest = Manifest::new(config, layers.collect());
                let manifest = blob(target, MANIFEST, &bytes(&manifest)?)?;
                if tags.is_empty() {
                    manifests.push(manifest);
                } else {
                    manifests.extend(tags.iter().map(|tag| manifest.named(tag)));
                }
            }
        }
        Ok(())
    }

    /// Writes the list of all images.
    ///
    /// # Errors
    /// Errors of the target.
    pub(crate) fn finish(self, target: &mut dyn Target) -> Result<()> {
        match self {
            Self::Docker(images) => target.bytes("manifest.json", &bytes(&images)?),
            Self::Oci { manifests, .. } => {
                target.bytes("oci-layout", &bytes(&Layout::default())?)?;
                target.bytes("index.json", &bytes(&Index::new(manifests))?)
            }
        }
    }
}

/// The file name of a layer in a docker-archive.
#[must_use]
pub(crate) fn tar_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// The media type and length of a blob in a manifest.
#[must_use]
pub(crate) fn listed_blob(manifest: &[u8], digest: &Digest) -> Option<(String, u64)> {
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    let named = digest.to_string();
    let listed = manifest.layers?.into_iter().find(|one| one.digest == named)?;
    Some((listed.media_type?, listed.size?))
}

/// The blobs of a layer; in Lamina's own form the index comes before the data.
fn descriptors(layer: &PackedLayer, layer_type: &str) -> impl Iterator<Item = Descriptor> + use<> {
    let index = layer.index.as_ref();
    let index = index.map(|(digest, size)| Descriptor::new(INDEX_TYPE, digest, *size));
    index.into_iter().chain([Descriptor::new(layer_type, &layer.digest, layer.size)])
}

fn blob(target: &mut dyn Target, media_type: &str, content: &[u8]) -> Result<Descriptor> {
    let digest = Digest::sha256(content);
    target.bytes(&digest.part(), content)?;
    Ok(Descriptor::new(media_type, &digest, content.len() as u64))
}

fn bytes(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    let bad = |error: serde_json::Error| TransferError::Unwritable { what: error.to_string() };
    serde_json::to_vec(document).map_err(bad)
}
