//! The images and layers found in an archive, and helpers for reading their documents.

use serde::de::DeserializeOwned;

use crate::format::oci::Config;
use crate::transfer::error::TransferError;
use crate::transfer::limits::DOCUMENTS_MAX;
use crate::transfer::path::shown;
use crate::types::Digest;

/// An image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The names in the archive: with `docker save` a whole reference, in an OCI layout any text,
    /// often only a tag; empty for an image without a name.
    pub names: Vec<String>,
    /// The OCI or Docker manifest, if the archive has one.
    pub manifest: Option<Vec<u8>>,
    /// The bytes of the configuration.
    pub config: Vec<u8>,
    /// The SHA-256 of the configuration, which is the ID of the image.
    pub config_digest: Digest,
    /// The layers, the lowest first.
    pub layers: Vec<FoundLayer>,
}

/// A layer of an image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayer {
    /// The media type in the manifest.
    pub media_type: Option<String>,
    /// Digest of the bytes that [`layer`](super::ImageSource::layer) returns, if the archive states
    /// it. The caller verifies a `sha256:`; the reader itself verifies any other.
    pub digest: Option<Digest>,
    /// The SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Number of bytes that [`layer`](super::ImageSource::layer) returns.
    pub size: u64,
    /// The index of a layer in Lamina's own form; the digest above is then that of its data.
    pub index: Option<Box<FoundLayer>>,
    /// The name of the part of the archive.
    pub(super) part: String,
}

impl FoundLayer {
    /// A layer whose tar is read from the part of a storage.
    pub(in crate::transfer) const fn stored(part: String, diff_id: Digest, size: u64) -> Self {
        Self { media_type: None, digest: None, diff_id, size, index: None, part }
    }

    /// The part of the archive or storage.
    pub(in crate::transfer) fn part(&self) -> &str {
        &self.part
    }
}

/// Collects images up to a limit on the size of their documents: a manifest of 4 MiB can refer to
/// one configuration ten thousand times.
pub(super) fn bounded(
    images: impl Iterator<Item = Result<FoundImage, TransferError>>,
) -> Result<Vec<FoundImage>, TransferError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for image in images {
        let image = image?;
        bytes += image.config.len() + image.manifest.as_ref().map_or(0, Vec::len);
        if bytes > DOCUMENTS_MAX {
            let what = "manifests and configurations have more than 64 MiB".to_owned();
            return Err(TransferError::TooLarge { what });
        }
        found.push(image);
    }
    Ok(found)
}

pub(super) fn missing(part: &str) -> TransferError {
    let part = shown(part.as_bytes());
    TransferError::Lacks { part }
}

pub(in crate::transfer) fn json<T: DeserializeOwned>(
    part: &str,
    raw: &[u8],
) -> Result<T, TransferError> {
    serde_json::from_slice(raw).map_err(|error| TransferError::Malformed {
        what: format!("{} is malformed: {error}", shown(part.as_bytes())),
    })
}

/// The diff IDs of a configuration; an error if their number differs from that of the layers.
pub(super) fn diff_ids(
    name: &str,
    config: &[u8],
    layers: usize,
) -> Result<Vec<Digest>, TransferError> {
    let ids = diff_ids_of(name, config)?;
    if ids.len() != layers {
        let part = shown(name.as_bytes());
        let what = format!("{part}: {} diff IDs, but the manifest has {layers} layers", ids.len());
        return Err(TransferError::Malformed { what });
    }
    Ok(ids)
}

/// The diff IDs of a configuration.
pub(in crate::transfer) fn diff_ids_of(
    name: &str,
    config: &[u8],
) -> Result<Vec<Digest>, TransferError> {
    let part = shown(name.as_bytes());
    let wrong = |what: String| TransferError::Malformed { what: format!("{part}: {what}") };
    let Some(rootfs) = json::<Config>(name, config)?.rootfs else {
        return Err(wrong("this is not an image configuration: it has no rootfs".to_owned()));
    };
    let ids = rootfs.diff_ids.unwrap_or_default();
    let read = |id: &String| {
        let id = Digest::parse(id)?;
        if !id.is_sha256() {
            return Err(wrong("diff IDs other than sha256 are not supported".to_owned()));
        }
        Ok(id)
    };
    ids.iter().map(read).collect()
}
