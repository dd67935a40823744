//! The interface to data of a layer that is not on this host.
//!
//! The caller that opens a store passes a [`Connect`]; this module does not depend on registries.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::FromHost;

use super::error::{Result, StoreError};
use crate::types::Digest;

/// The place where the data of a layer can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The reference of the image, as it was requested.
    pub reference: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// Whether invalid certificates and plain HTTP are accepted.
    pub insecure: bool,
    /// The directory of certificates that was given.
    pub cert_dir: Option<PathBuf>,
    /// The file with the credentials.
    pub authfile: Option<PathBuf>,
    /// Whether the rest is fetched in the background.
    pub background: bool,
}

/// Fetches parts of blobs.
pub trait Fetch: Send + Sync {
    /// Fills `to` with the bytes of a blob from `from` on.
    ///
    /// # Errors
    /// If not all of the bytes can be fetched.
    fn part(&self, blob: &Digest, from: u64, to: &mut [u8]) -> Result<()>;

    /// Drops state that may have caused the last failure: a broken connection or an expired token.
    fn renew(&self);
}

/// Prepares the access to an origin. It sends no request, but reads files that a mount may cover
/// later.
pub type Connect = dyn Fn(&Origin) -> Result<Box<dyn Fetch>> + Send + Sync;

/// The [`Connect`] of a store that was opened without one: it always fails.
pub(super) fn nowhere(origin: &Origin) -> Result<Box<dyn Fetch>> {
    let path = Path::new(&origin.reference);
    Err(StoreError::io(path)(io::ErrorKind::NotConnected.into()))
}
