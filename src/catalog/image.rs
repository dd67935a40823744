//! The record of an image.

use serde::{Deserialize, Serialize};

use crate::format::oci::is_native;
use crate::store::id::{DiffId, LayerId};
use crate::types::Digest;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The id of the layer.
    pub id: LayerId,
    /// Its content.
    pub diff_id: DiffId,
    /// The digest of that stream as it was stored, where it is known.
    pub digest: Option<Digest>,
    /// Bytes of it as it was stored.
    pub size: u64,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of the configuration, 64 hexadecimal digits: the id that podman and Docker show.
    pub id: String,
    /// Layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// The configuration as it was, JSON.
    pub config: Vec<u8>,
    /// The manifest as it was, where there was one.
    pub manifest: Option<Vec<u8>>,
}

impl Image {
    /// Whether the layers were compared with their diff IDs: not if they came in our own
    /// form.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        !self.manifest.as_deref().is_some_and(is_native)
    }
}
