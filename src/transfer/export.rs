//! Export of layers and images as tars, OCI layouts and docker-archives.
//!
//! - `member`: members of a tar; `tar`: a layer as a tar, always with equal bytes;
//! - `documents`: manifests and lists;
//! - `tree`: a tree of the host as a tar; `file`: a file that appears as a whole;
//! - `compression`: how layers and tars are packed;
//! - `target`: the destination: a directory, a file or a pipe; `registry`: a registry.

mod compression;
pub(crate) mod documents;
mod file;
pub(in crate::transfer) mod member;
mod registry;
mod tar;
mod target;
mod tree;

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::store::recipe::{Recipes, written};
use crate::store::{DiffId, Layer};
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

pub use crate::format::oci::{DATA_TYPE, INDEX_TYPE};
pub use compression::Compression;
pub use file::FileTarget;
pub use registry::{OnSent, RegistryTarget};
pub use target::{DirTarget, TarTarget, Target};
pub use tree::{Exported, export_tree};

/// A writer that counts and digests the bytes that pass through it.
pub struct Digested<W> {
    inner: W,
    hasher: Sha256,
    len: u64,
}

impl<W: Write> Digested<W> {
    /// Digests the bytes that are written to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), len: 0 }
    }

    /// Returns the digest, the number of bytes, and the inner writer.
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

/// Writes a layer as a tar: with the bytes that were imported, if they are known, else in Lamina's
/// own layout. Returns its diff ID.
///
/// # Errors
/// [`TransferError::Unwritable`] and
/// [`StoreError::Damaged`](crate::store::error::StoreError::Damaged) if the imported bytes cannot
/// be reproduced; [`TransferError::Entry`] for an object that no tar can hold; errors of `out`.
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

/// Returns the diff ID of a layer in Lamina's own tar layout.
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
