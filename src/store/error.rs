//! Why the store refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::types::digest::{BadDigest, OtherDigest};

/// Result of a request to the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The host refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which object.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
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
    /// An archive is none, or contradicts itself.
    #[error("{what}")]
    Archive {
        /// What is wrong with it, and what is expected.
        what: String,
    },
    /// What the store holds is not what was put there.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which file of the store.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// There is no such layer or image.
    #[error("{kind} {name:?} does not exist")]
    Missing {
        /// `layer` or `image`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// A layer or image is needed by something else.
    #[error("{kind} {name:?} is in use by {by}")]
    InUse {
        /// `layer` or `image`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
        /// What needs it.
        by: String,
    },
    /// Something of this name is there already.
    #[error("{kind} {name:?} exists already")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A name that no container can have.
    #[error(
        "{0:?} is no container name: 1 to 128 of A-Z a-z 0-9 _ . -, the first a letter or digit"
    )]
    BadContainer(String),
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
    /// A name that no image can have.
    #[error("{0:?} is no image name: NAME[:TAG], lower case, as in registry references")]
    BadName(String),
}

impl StoreError {
    /// Names the path of a refusal of the host.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// The same for a system call of ours.
    pub fn host(path: &Path) -> impl Fn(Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| {
            let source = io::Error::from_raw_os_error(error.errno().0);
            Self::Io { path: path.clone(), source }
        }
    }
}

impl From<BadDigest> for StoreError {
    fn from(bad: BadDigest) -> Self {
        Self::Archive { what: bad.to_string() }
    }
}

impl From<OtherDigest> for StoreError {
    fn from(other: OtherDigest) -> Self {
        Self::Archive { what: other.to_string() }
    }
}
