//! Errors of imports and exports.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::HostError;
use crate::store::error::StoreError;
use crate::tree::error::TreeError;
use crate::types::digest::{BadDigest, Digest, OtherDigest};

/// Result of an import or export.
pub type Result<T> = std::result::Result<T, TransferError>;

/// An error of an import or export.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file or directory of the host cannot be imported.
    #[error("{}: {error}", path.display())]
    Source {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        error: Box<Self>,
    },
    /// Reading a stream failed.
    #[error("{what}: {source}")]
    Stream {
        /// The name of the stream.
        what: String,
        /// The error of the reader.
        source: io::Error,
    },
    /// An entry of an archive cannot be part of a layer.
    #[error("{name}: {what}")]
    Entry {
        /// The entry as the archive names it.
        name: String,
        /// The reason.
        what: String,
    },
    /// A stream or a document is malformed or contradicts itself.
    #[error("{what}")]
    Malformed {
        /// The defect, and the expected content.
        what: String,
    },
    /// A stream ends too early.
    #[error("{what} is truncated: {end}")]
    Truncated {
        /// The name of the stream.
        what: String,
        /// The place where it ends.
        end: String,
    },
    /// A stream was changed since it was written.
    #[error("{what} is damaged: {found}")]
    Damaged {
        /// The name of the stream.
        what: String,
        /// The defect that was found.
        found: String,
    },
    /// The input is well-formed but not supported.
    #[error("{what}")]
    Unsupported {
        /// The kind of the input, and the supported kinds.
        what: String,
    },
    /// The input is larger than the limit.
    #[error("{what}")]
    TooLarge {
        /// The part that is too large, and the limit.
        what: String,
    },
    /// A part is missing.
    #[error("the archive is incomplete: its manifest names {part}, which is missing")]
    Lacks {
        /// The path of the part.
        part: String,
    },
    /// No image of the index is for this host.
    #[error("the image is for {platforms}, not for {host}")]
    OtherHost {
        /// The architectures of the images.
        platforms: String,
        /// The architecture of this host.
        host: &'static str,
    },
    /// A malformed digest.
    #[error(transparent)]
    BadDigest(#[from] BadDigest),
    /// Bytes with another digest than expected.
    #[error(transparent)]
    OtherDigest(#[from] OtherDigest),
    /// A layer or a blob has another digest than the image states.
    #[error("{kind} {expected} has other content: {found}")]
    Other {
        /// `layer` or `blob`.
        kind: &'static str,
        /// The expected digest.
        expected: Digest,
        /// The digest that was found.
        found: Digest,
    },
    /// An object cannot be written.
    #[error("{what}")]
    Unwritable {
        /// The object, and the reason.
        what: String,
    },
    /// A malformed reference.
    #[error("invalid image name {0:?}: use NAME[:TAG] in lower case, as in a registry reference")]
    BadReference(String),
    /// A malformed proxy address.
    #[error("proxy {place:?}: {what}")]
    Proxy {
        /// The proxy, without user and password.
        place: String,
        /// The defect.
        what: String,
    },
    /// A malformed file of a certificate or of its key.
    #[error("{}: {what}", path.display())]
    Certificate {
        /// The path of the file.
        path: PathBuf,
        /// The defect.
        what: String,
    },
    /// A registry refused a request, could not be reached, or sent an invalid answer.
    #[error("{reference}: {what}")]
    Registry {
        /// The reference as it was given.
        reference: String,
        /// A description of the failure; never a password or token.
        what: String,
    },
}

impl From<TreeError> for TransferError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Host(error) => Self::Host(error),
            TreeError::Entry { name, what } => Self::Entry { name, what },
        }
    }
}

impl TransferError {
    /// The underlying error, without the name of the input.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Source { error, .. } => error.root(),
            other => other,
        }
    }

    /// The file or directory that is imported or written, if it was added.
    pub(crate) fn input(&self) -> Option<&Path> {
        match self {
            Self::Source { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Adds the name of the input, unless the error already has a path.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        match self {
            Self::Host(_)
            | Self::Source { .. }
            | Self::Store(StoreError::Host(_) | StoreError::Damaged { .. }) => self,
            other => Self::Source { path: path.to_owned(), error: Box::new(other) },
        }
    }

    /// Returns the error for a malformed stream or document.
    pub(super) fn malformed(what: &str) -> Self {
        Self::Malformed { what: what.to_owned() }
    }

    /// Whether the content of the input is at fault, rather than its source or destination.
    pub(super) fn is_of_content(&self) -> bool {
        match self {
            Self::Source { error, .. } => error.is_of_content(),
            Self::Malformed { .. }
            | Self::Truncated { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. }
            | Self::TooLarge { .. }
            | Self::Lacks { .. }
            | Self::OtherHost { .. }
            | Self::BadDigest(_)
            | Self::OtherDigest(_)
            | Self::Other { .. } => true,
            Self::Store(_)
            | Self::Host(_)
            | Self::Stream { .. }
            | Self::Entry { .. }
            | Self::Unwritable { .. }
            | Self::BadReference(_)
            | Self::Proxy { .. }
            | Self::Certificate { .. }
            | Self::Registry { .. } => false,
        }
    }
}
