//! Why a record is not there, cannot be made or does not go.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::store::error::StoreError;

/// Result of a request for images or containers.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Why a request for images or containers failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The data root refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which object.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// A record is not what was put there.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// There is no such image or container.
    #[error("{kind} {name:?} does not exist")]
    Missing {
        /// `image` or `container`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// An image or container is needed by something else.
    #[error("{kind} {name:?} is in use by {by}")]
    InUse {
        /// `image` or `container`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
        /// What needs it.
        by: String,
    },
    /// Something of this name is there already.
    #[error("{kind} {name:?} already exists")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An image with this configuration has other layers.
    #[error("image {id} already exists with other layers: remove it first")]
    OtherLayers {
        /// The id of the image.
        id: String,
    },
    /// A name that no image can have.
    #[error("invalid image name {0:?}: use NAME[:TAG] in lower case, as in a registry reference")]
    BadName(String),
    /// A name that no container can have.
    #[error(
        "invalid container name {0:?}: use 1 to 128 of A-Z a-z 0-9 _ . -, beginning with a \
         letter or digit"
    )]
    BadContainer(String),
}

impl CatalogError {
    /// Names the path of a refusal of the host.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Names the path of a refusal of a system call of `sys`.
    pub fn host(path: &Path) -> impl Fn(Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| {
            let source = io::Error::from_raw_os_error(error.errno().0);
            Self::Io { path: path.clone(), source }
        }
    }
}
