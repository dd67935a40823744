//! Fetches parts of blobs from a registry, for layers that are only partly on this host.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Registry;
use super::access::{Access, AccessOptions};
use super::reference::Reference;
use crate::store::error::{Result, StoreError};
use crate::store::fetch::{Fetch, Origin};
use crate::transfer::error;
use crate::types::Digest;

/// A registry that is connected to at the first request.
struct Repository {
    reference: Reference,
    access: Access,
    registry: Mutex<Option<Arc<Registry>>>,
}

/// Prepares the access to the registry of an origin; see [`Connect`](crate::store::fetch::Connect).
///
/// # Errors
/// As [`Reference::parse`] and [`Access::find`].
pub fn connect(origin: &Origin) -> Result<Box<dyn Fetch>> {
    let Origin { insecure, authfile, cert_dir, .. } = origin.clone();
    let words = AccessOptions { creds: None, authfile, cert_dir, insecure, again: true };
    let reference = Reference::parse(&origin.reference).map_err(StoreError::elsewhere)?;
    let access = Access::find(&reference, words).map_err(StoreError::elsewhere)?;
    Ok(Box::new(Repository { reference, access, registry: Mutex::default() }))
}

impl Repository {
    fn registry(&self) -> error::Result<Arc<Registry>> {
        if let Some(known) = &*self.registry.lock() {
            return Ok(Arc::clone(known));
        }
        let Access { credentials, connection, .. } = self.access.clone();
        let made = Registry::connect(&self.reference, credentials, &connection)?;
        Ok(Arc::clone(self.registry.lock().insert(Arc::new(made))))
    }
}

impl Fetch for Repository {
    fn part(&self, blob: &Digest, from: u64, to: &mut [u8]) -> Result<()> {
        let done = self.registry().and_then(|at| at.part(blob, from, to));
        done.map_err(StoreError::elsewhere)
    }

    fn renew(&self) {
        self.registry.lock().take();
    }
}
