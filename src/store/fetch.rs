//! The way to the data of a layer that is elsewhere, as far as the reading of one knows of it.
//!
//! The caller that opens a store hands over a [`Connect`]; nothing here knows registries.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::FromHost;

use super::error::{Result, StoreError};
use crate::types::Digest;

/// Where the data of a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The image as it was asked for.
    pub reference: String,
    /// The blob.
    pub digest: Digest,
    /// Whether bad certificates and plain HTTP will do.
    pub insecure: bool,
    /// A directory of certificates that was named.
    pub cert_dir: Option<PathBuf>,
    /// The file that had the passwords.
    pub authfile: Option<PathBuf>,
    /// Whether the rest is fetched while nobody asks for it.
    pub background: bool,
}

/// Fetches parts of blobs.
pub trait Fetch: Send + Sync {
    /// Fills `to` with the bytes of a blob from `from` on.
    ///
    /// # Errors
    /// Where they cannot be had, or not all of them.
    fn part(&self, blob: &Digest, from: u64, to: &mut [u8]) -> Result<()>;

    /// Drops what may have made the last attempt fail: a connection that is gone, a token that is
    /// too old.
    fn renew(&self);
}

/// Finds the way to an origin. It does not ask there yet; it reads what may lie below a mount
/// later.
pub type Connect = dyn Fn(&Origin) -> Result<Box<dyn Fetch>> + Send + Sync;

/// The way of a store that was opened without one: there is none.
pub(super) fn nowhere(origin: &Origin) -> Result<Box<dyn Fetch>> {
    let path = Path::new(&origin.reference);
    Err(StoreError::io(path)(io::ErrorKind::NotConnected.into()))
}
