//! Images in archives of `docker save` and `podman save` and in OCI image layouts.
//!
//! An archive is a tar whose parts are read in place: one pass records the offset of each. A
//! compressed archive, or one from a pipe, is first written to a file without a name. Manifests and
//! configurations are checked against their digests. For layers, the expected digests are returned,
//! and the reader of the layer checks them.
//!
//! Formats: OCI image specification 1.1 (`image-layout.md`, `manifest.md`, `image-index.md`), and
//! Docker's `image/spec/v1.2.md`, "Combined Image JSON + Filesystem Changeset Format".

use std::io::{BufReader, Read};

use super::limits::{MANIFEST_MAX, READ_BYTES};
use crate::transfer::error::TransferError;

mod docker;
mod found;
mod kind;
pub(super) mod oci;
mod parts;
mod spool;
#[cfg(test)]
mod testing;

pub use found::{FoundImage, FoundLayer};
pub(super) use found::{diff_ids_of, json};
pub use kind::{Input, open_input, open_stream};

use found::missing;
use parts::Parts;

/// An archive or layout with images.
pub struct ImageSource {
    parts: Parts,
}

impl ImageSource {
    /// Returns the images. For an image for several platforms, it is the one for this host.
    ///
    /// # Errors
    /// [`TransferError`] if a manifest is missing, too long, malformed or contradicts itself, or if
    /// a part does not have the digest that refers to it.
    pub fn images(&self) -> Result<Vec<FoundImage>, TransferError> {
        if let Some(raw) = self.parts.read("manifest.json", MANIFEST_MAX)? {
            let mut images = docker::images(&self.parts, &raw)?;
            self.add_manifests(&mut images);
            return Ok(images);
        }
        if let Some(raw) = self.parts.read("oci-layout", MANIFEST_MAX)? {
            return oci::images(&self.parts, &raw);
        }
        Err(TransferError::malformed(
            "this is no image archive: it has neither manifest.json (docker save, podman save) \
             nor oci-layout (OCI image layout)",
        ))
    }

    // Newer archives of `docker save` are OCI layouts too, and only those have manifests. A
    // manifest is kept if it refers to the same configuration and to the same bytes of layers.
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

    /// The bytes of a layer as they are in the archive, possibly compressed, for
    /// [`layer_from_tar`](super::tar::layer_from_tar).
    ///
    /// # Errors
    /// [`TransferError::Lacks`] if the layer is not in the archive.
    pub fn layer(&self, layer: &FoundLayer) -> Result<Box<dyn Read + '_>, TransferError> {
        let part = self.parts.find(&layer.part)?.ok_or_else(|| missing(&layer.part))?;
        let part = BufReader::with_capacity(READ_BYTES, part);
        Ok(match &layer.digest {
            Some(digest) if !digest.is_sha256() => Box::new(digest.clone().verify(part)),
            _ => Box::new(part),
        })
    }
}
