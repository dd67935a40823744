//! Records of sent layers: the digests of blobs that can be named without being made again.
//!
//! `packed/LAYER.FORM` of the data root is a record of the last time that a layer was written in a
//! form. It holds the requested diff ID, the diff ID that was written, the digest and length of the
//! blob and, in Lamina's own form, those of the index. If a registry already has a blob of that
//! digest, no blob is sent. The records are a cache: all may be removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Result, StoreError};
use super::files::{listed, make_dir, write_whole};
use super::id::{DiffId, LayerId};
use crate::error::FromHost;
use crate::format::codec;
use crate::types::Digest;

const VERSION: u16 = 1;

/// The blobs that a layer was written as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLayer {
    /// The diff ID that the image states.
    pub asked: DiffId,
    /// The diff ID of the bytes that were written.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The length of the blob in bytes.
    pub size: u64,
    /// The digest and length of the index, for a layer in Lamina's own form.
    pub index: Option<(Digest, u64)>,
}

/// The records of a data root.
pub struct PackedLayers {
    dir: PathBuf,
}

impl PackedLayers {
    pub(super) fn new(root: &Path) -> Self {
        Self { dir: root.join("packed") }
    }

    fn path(&self, layer: &LayerId, form: &str) -> PathBuf {
        self.dir.join(format!("{layer}.{form}"))
    }

    /// Returns the record of a layer with this diff ID, if there is one.
    #[must_use]
    pub fn find(&self, layer: &LayerId, diff_id: &DiffId, form: &str) -> Option<PackedLayer> {
        let bytes = fs::read(self.path(layer, form)).ok()?;
        let found: PackedLayer = codec::decode(VERSION, &bytes).ok()?;
        (found.asked == *diff_id).then_some(found)
    }

    /// Writes a record. A failure is only logged: it costs time later and nothing else.
    pub fn keep(&self, layer: &LayerId, form: &str, packed: &PackedLayer) {
        let path = self.path(layer, form);
        let write = || -> Result<()> {
            make_dir(&self.dir)?;
            let bytes = codec::encode(VERSION, packed).map_err(|error| StoreError::Damaged {
                path: path.clone(),
                what: error.to_string(),
            })?;
            write_whole(&path, &bytes)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "not noted how a layer was packed");
        }
    }

    /// Removes the records of layers that do not exist.
    ///
    /// # Errors
    /// As readdir(3) and unlink(2).
    pub fn collect(&self, there: &BTreeSet<String>) -> Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        for name in listed(&self.dir)? {
            let layer = name.split('.').next().unwrap_or_default();
            if !there.contains(layer) {
                let path = self.dir.join(&name);
                fs::remove_file(&path).map_err(StoreError::io(&path))?;
            }
        }
        Ok(())
    }
}
