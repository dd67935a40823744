//! A registry as an export target: the blobs of an OCI layout are uploaded, and its index becomes
//! the tag of the manifest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use super::Target;
use crate::error::FromHost;
use crate::format::oci::{Index, MANIFEST};
use crate::transfer::error::{Result, TransferError};
use crate::transfer::registry::Registry;
use crate::types::Digest;

const BLOBS: &str = "blobs/sha256/";

/// Receives the files of one image.
pub struct RegistryTarget {
    registry: Registry,
    on_sent: OnSent,
    /// Short blobs; one of them is the manifest.
    short: HashMap<Digest, Vec<u8>>,
    manifest: Option<Digest>,
    pushed: Arc<OnceLock<Digest>>,
}

/// Receives the number of bytes of a file that were sent.
pub type OnSent = Rc<dyn Fn(u64)>;

/// Reads a file from its start, with a position of its own.
struct FromStart {
    file: File,
    at: u64,
    on_sent: OnSent,
}

impl Read for FromStart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buf, self.at)?;
        self.at += len as u64;
        (self.on_sent)(self.at);
        Ok(len)
    }
}

impl RegistryTarget {
    /// Returns a target for a repository. The second value receives the digest of the manifest at
    /// the end.
    #[must_use]
    pub fn new(registry: Registry, on_sent: OnSent) -> (Self, Arc<OnceLock<Digest>>) {
        let pushed = Arc::new(OnceLock::new());
        let also = Arc::clone(&pushed);
        (Self { registry, on_sent, short: HashMap::new(), manifest: None, pushed }, also)
    }
}

fn digest_of(name: &str) -> Option<Digest> {
    name.strip_prefix(BLOBS).and_then(|hex| format!("sha256:{hex}").parse().ok())
}

fn lost(what: &str) -> TransferError {
    TransferError::Unwritable { what: what.to_owned() }
}

impl Target for RegistryTarget {
    fn has(&mut self, name: &str) -> Result<bool> {
        digest_of(name).map_or(Ok(false), |digest| self.registry.has(&digest))
    }

    fn file(&mut self, name: &str, content: File, size: u64) -> Result<()> {
        let digest = digest_of(name).ok_or_else(|| lost("a file of no digest"))?;
        let again = || -> Result<Box<dyn Read>> {
            let file = content.try_clone().map_err(TransferError::io(Path::new(name)))?;
            Ok(Box::new(FromStart { file, at: 0, on_sent: Rc::clone(&self.on_sent) }))
        };
        self.registry.upload(&digest, size, &again).map(drop)
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<()> {
        if let Some(digest) = digest_of(name) {
            self.short.insert(digest, content.to_vec());
        }
        if name == "index.json" {
            let index: Index = serde_json::from_slice(content)
                .map_err(|error| lost(&format!("the index of what is pushed: {error}")))?;
            let listed = index.manifests.into_iter().flatten().next();
            self.manifest = listed.and_then(|manifest| manifest.digest.parse().ok());
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let digest = self.manifest.take().ok_or_else(|| lost("no image is pushed"))?;
        let manifest = self.short.remove(&digest).ok_or_else(|| lost("no manifest"))?;
        for (digest, content) in &self.short {
            let again = || Ok(Box::new(Cursor::new(content.clone())) as Box<dyn Read>);
            self.registry.upload(digest, content.len() as u64, &again)?;
        }
        // The manifest goes last, after everything that it refers to.
        self.registry.put_manifest(&manifest, MANIFEST)?;
        drop(self.pushed.set(digest));
        Ok(())
    }
}
