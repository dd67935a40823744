//! What is found of images in an archive, and what their documents share.

use serde::de::DeserializeOwned;

use crate::format::oci::Config;
use crate::transfer::error::TransferError;
use crate::transfer::limits::DOCUMENTS_MAX;
use crate::transfer::path::shown;
use crate::types::Digest;

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
    /// The SHA-256 of the configuration: the ID of the image.
    pub config_digest: Digest,
    /// From the lowest up.
    pub layers: Vec<FoundLayer>,
}

/// A layer of an image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayer {
    /// As the manifest states it.
    pub media_type: Option<String>,
    /// Digest of the bytes that [`layer`](super::ImageSource::layer) gives, where the archive
    /// states it. A `sha256:` is left to whoever reads them; any other is verified by the reader.
    pub digest: Option<Digest>,
    /// The SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes that [`layer`](super::ImageSource::layer) gives.
    pub size: u64,
    /// Of a layer in our own form: its index. The digest above is that of its data.
    pub index: Option<Box<FoundLayer>>,
    /// Which part of the archive it is.
    pub(super) part: String,
}

/// Collects images until their documents are too many: a manifest of 4 MiB can name one
/// configuration ten thousand times.
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

pub(super) fn json<T: DeserializeOwned>(part: &str, raw: &[u8]) -> Result<T, TransferError> {
    serde_json::from_slice(raw).map_err(|error| TransferError::Malformed {
        what: format!("{} is malformed: {error}", shown(part.as_bytes())),
    })
}

/// The diff IDs of a configuration, as many as there are layers.
pub(super) fn diff_ids(
    name: &str,
    config: &[u8],
    layers: usize,
) -> Result<Vec<Digest>, TransferError> {
    let part = shown(name.as_bytes());
    let wrong = |what: String| TransferError::Malformed { what: format!("{part}: {what}") };
    let Some(rootfs) = json::<Config>(name, config)?.rootfs else {
        return Err(wrong("this is not an image configuration: it has no rootfs".to_owned()));
    };
    let ids = rootfs.diff_ids.unwrap_or_default();
    if ids.len() != layers {
        let what = format!("{} diff IDs, but the manifest has {layers} layers", ids.len());
        return Err(wrong(what));
    }
    let read = |id: &String| {
        let id = Digest::parse(id)?;
        if !id.is_sha256() {
            return Err(wrong("diff IDs other than sha256 are not supported".to_owned()));
        }
        Ok(id)
    };
    ids.iter().map(read).collect()
}
