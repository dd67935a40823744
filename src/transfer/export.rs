//! Layers and images as the world outside reads them: tars, OCI layouts, docker-archives.
//!
//! - `tar`: a layer as a tar, the same one each time; `documents`: what names layers and images;
//! - `target`: where an image is written: a directory, a file, a pipe; `registry`: a registry.

pub(crate) mod documents;
mod registry;
mod tar;
mod target;

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::store::recipe::{Recipes, written};
use crate::store::{DiffId, Layer};
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

pub use crate::format::oci::{DATA_TYPE, INDEX_TYPE};
pub use registry::RegistryTarget;
pub use target::{DirTarget, TarTarget, Target};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The media type of a layer of OCI, by its ending.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Bytes on their way, counted and digested.
pub struct Digested<W> {
    inner: W,
    hasher: Sha256,
    len: u64,
}

impl<W: Write> Digested<W> {
    /// Digests what goes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), len: 0 }
    }

    /// The digest, the count of bytes, and what they went to.
    pub fn finish(self) -> (Digest, u64, W) {
        let digest: [u8; 32] = self.hasher.finalize().into();
        (Digest::from_sha256(&digest), self.len, self.inner)
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(buf)?;
        self.hasher.update(buf.get(..len).unwrap_or_default());
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a layer as a tar: as it was imported if that is known, else as we write one. Answers
/// its diff ID.
///
/// # Errors
/// [`TransferError::Unwritable`] where what was imported cannot be written again, and
/// [`StoreError::Damaged`](crate::store::error::StoreError::Damaged);
/// [`TransferError::Entry`] for what no tar can hold; what `out` answers.
pub fn write_layer(
    recipes: &Recipes,
    layer: &Layer,
    diff_id: &DiffId,
    out: &mut dyn Write,
) -> Result<Digest> {
    let mut digested = Digested::new(out);
    let known = recipes.write(diff_id, layer, &mut digested)?;
    if !known {
        tar::write(layer, &mut digested)?;
    }
    digested.flush().map_err(written)?;
    let (found, _, _) = digested.finish();
    if known && diff_id.tar() != Some(&found) {
        let what = format!("the tar {diff_id} cannot be written again by its recipe");
        return Err(TransferError::Unwritable { what });
    }
    Ok(found)
}

/// The diff ID of a layer as we write it.
///
/// # Errors
/// As [`write_layer`].
pub fn diff_id(layer: &Layer) -> Result<Digest> {
    let mut digested = Digested::new(io::sink());
    tar::write(layer, &mut digested)?;
    Ok(digested.finish().0)
}

#[cfg(test)]
mod tests;
