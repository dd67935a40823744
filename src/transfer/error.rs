//! Why nothing came in or went out.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::HostError;
use crate::store::error::StoreError;
use crate::types::digest::{BadDigest, Digest, OtherDigest};

/// Result of an import or an export.
pub type Result<T> = std::result::Result<T, TransferError>;

/// Why an import or an export failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What was read from a file or directory of the host cannot be imported.
    #[error("{}: {error}", path.display())]
    Source {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        error: Box<Self>,
    },
    /// A stream that is read failed.
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
    /// A stream or a document is none of its kind, or contradicts itself.
    #[error("{what}")]
    Malformed {
        /// What is wrong with it, and what is expected.
        what: String,
    },
    /// A stream ends too early.
    #[error("{what} is truncated: {end}")]
    Truncated {
        /// What was read.
        what: String,
        /// Where it ends.
        end: String,
    },
    /// A stream was changed since it was written.
    #[error("{what} is damaged: {found}")]
    Damaged {
        /// What was read.
        what: String,
        /// What was found in it.
        found: String,
    },
    /// It is well-formed, and nothing that is read here.
    #[error("{what}")]
    Unsupported {
        /// What it is, and what is supported.
        what: String,
    },
    /// It is larger than what is read.
    #[error("{what}")]
    TooLarge {
        /// What is, and the limit.
        what: String,
    },
    /// A part is not there.
    #[error("the archive is incomplete: its manifest names {part}, which is missing")]
    Lacks {
        /// Its path.
        part: String,
    },
    /// There is no image for this host.
    #[error("the image is for {platforms}, not for {host}")]
    OtherHost {
        /// The architectures that it is for.
        platforms: String,
        /// The one of this host.
        host: &'static str,
    },
    /// A digest is none.
    #[error(transparent)]
    BadDigest(#[from] BadDigest),
    /// Bytes have another digest.
    #[error(transparent)]
    OtherDigest(#[from] OtherDigest),
    /// A layer or a blob that was read is not the one that was named.
    #[error("{kind} {expected} has other content: {found}")]
    Other {
        /// `layer` or `blob`.
        kind: &'static str,
        /// The digest that it should have.
        expected: Digest,
        /// The one that it has.
        found: Digest,
    },
    /// Something cannot be written.
    #[error("{what}")]
    Unwritable {
        /// What, and why.
        what: String,
    },
    /// A reference that is none.
    #[error("invalid image name {0:?}: use NAME[:TAG] in lower case, as in a registry reference")]
    BadReference(String),
    /// A proxy that is none.
    #[error("proxy {place:?}: {what}")]
    Proxy {
        /// The proxy, without user and password.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of a certificate or of its key is none.
    #[error("{}: {what}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A registry refused, could not be reached, or sent something else than was asked for.
    #[error("{reference}: {what}")]
    Registry {
        /// The reference as it was given.
        reference: String,
        /// What happened; never a password or token.
        what: String,
    },
}

impl TransferError {
    /// The failure itself, without the name of what was imported.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Source { error, .. } => error.root(),
            other => other,
        }
    }

    /// Names what was imported, unless the failure names a path by itself.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        match self {
            Self::Host(_)
            | Self::Source { .. }
            | Self::Store(StoreError::Host(_) | StoreError::Damaged { .. }) => self,
            other => Self::Source { path: path.to_owned(), error: Box::new(other) },
        }
    }

    /// A stream or a document that is none.
    pub(super) fn malformed(what: &str) -> Self {
        Self::Malformed { what: what.to_owned() }
    }

    /// Whether what was read is at fault, and not who gave or took it.
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
