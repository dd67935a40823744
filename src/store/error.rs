//! Why the store refused.

use std::io;
use std::path::PathBuf;

use crate::error::HostError;
use crate::types::Digest;

/// Result of a request to the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A stream that is imported ended or failed.
    #[error("{what}: {source}")]
    Stream {
        /// What was read.
        what: String,
        /// What it answered.
        source: io::Error,
    },
    /// An entry of an archive cannot be part of a layer.
    #[error("{name}: {what}")]
    Entry {
        /// The entry as the archive names it.
        name: String,
        /// Why not.
        what: String,
    },
    /// What is to become a layer is larger than a layer can be.
    #[error("{what}")]
    TooLarge {
        /// What is, and the limit.
        what: String,
    },
    /// A layer in its own form contradicts itself, or what was said of it.
    #[error("{what}")]
    Contradiction {
        /// What differs.
        what: String,
    },
    /// A blob is not the one that was named.
    #[error("blob {digest} has other content: {found}")]
    OtherBlob {
        /// The digest that it should have.
        digest: Digest,
        /// The one that it has.
        found: Digest,
    },
    /// What is read from elsewhere could not be had.
    #[error(transparent)]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
    /// What the store holds is not what was put there.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which file of the store.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// There is no such layer.
    #[error("{kind} {name:?} does not exist")]
    Missing {
        /// What it is.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// A layer is needed by something else.
    #[error("{kind} {name:?} is in use by {by}")]
    InUse {
        /// What it is.
        kind: &'static str,
        /// As it was asked for.
        name: String,
        /// What needs it.
        by: String,
    },
}

impl StoreError {
    /// A failure of the source of what is read from elsewhere.
    pub fn elsewhere(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Elsewhere(Box::new(error))
    }
}
