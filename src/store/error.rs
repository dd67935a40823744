//! Errors of the store.

use std::io;
use std::path::PathBuf;

use crate::error::HostError;
use crate::types::Digest;

/// Result of a request to the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An error of a request to the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A stream that is imported ended early or failed.
    #[error("{what}: {source}")]
    Stream {
        /// The part of the stream.
        what: String,
        /// The error of the reader.
        source: io::Error,
    },
    /// An entry of an archive cannot be part of a layer.
    #[error("{name}: {what}")]
    Entry {
        /// The path of the entry in the archive.
        name: String,
        /// The reason.
        what: String,
    },
    /// The input for a layer is larger than a layer can be.
    #[error("{what}")]
    TooLarge {
        /// The part that is too large, and the limit.
        what: String,
    },
    /// A layer in Lamina's own form contradicts itself or the image that names it.
    #[error("{what}")]
    Contradiction {
        /// The contradiction.
        what: String,
    },
    /// A blob has another digest than the image states.
    #[error("blob {digest} has other content: {found}")]
    OtherBlob {
        /// The expected digest.
        digest: Digest,
        /// The digest that was found.
        found: Digest,
    },
    /// Data could not be fetched from a registry.
    #[error(transparent)]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
    /// The store holds data that differs from what was stored.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The path of the file of the store.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// There is no layer or object of this name.
    #[error("{kind} {name:?} does not exist")]
    Missing {
        /// The kind of the object.
        kind: &'static str,
        /// The requested name.
        name: String,
    },
    /// An object is in use.
    #[error("{kind} {name:?} is in use by {by}")]
    InUse {
        /// The kind of the object.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// The user of the object.
        by: String,
    },
}

impl StoreError {
    /// Wraps an error of the source from which data is fetched.
    pub fn elsewhere(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Elsewhere(Box::new(error))
    }
}
