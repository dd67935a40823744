//! Why a record is not there, cannot be made or does not go.

use std::fmt;
use std::path::PathBuf;

use crate::error::HostError;
use crate::store::error::StoreError;
use crate::types::BadObjectName;

/// Result of a request for images, containers or volumes.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Why a request for images, containers or volumes failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The data root refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A record is not what was put there.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The catalogue cannot be read or written.
    #[error("{}: {what}", path.display())]
    Database {
        /// The file of the catalogue.
        path: PathBuf,
        /// The message of SQLite, or the row that is invalid.
        what: String,
        /// Whether the content of the file is damaged.
        is_damage: bool,
    },
    /// Another process kept the catalogue locked.
    #[error("{}: another process keeps it locked", path.display())]
    Locked {
        /// The file of the catalogue.
        path: PathBuf,
    },
    /// A later version of this program made the catalogue.
    #[error("{} has version {found}; this program reads up to version {known}", path.display())]
    Newer {
        /// The file of the catalogue.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// There is no object of this kind and name.
    #[error("{kind} {name:?} does not exist")]
    Missing {
        /// `image`, `container` or `volume`.
        kind: &'static str,
        /// The name in the request.
        name: String,
    },
    /// An object cannot be removed while it has a user.
    #[error("{kind} {name:?} is in use by {by}")]
    InUse {
        /// `image`, `container` or `volume`.
        kind: &'static str,
        /// The name in the request.
        name: String,
        /// The user.
        by: User,
    },
    /// Another process changed an object meanwhile.
    #[error("{kind} {name:?} was changed meanwhile")]
    Changed {
        /// `volume`.
        kind: &'static str,
        /// The name in the request.
        name: String,
    },
    /// A rollback of a container was interrupted.
    #[error("container {name:?} is rolled back to {snapshot:?} in part: that was interrupted")]
    HalfRolledBack {
        /// The name of the container.
        name: String,
        /// The name of the snapshot.
        snapshot: String,
        /// The file that notes it.
        path: PathBuf,
    },
    /// The content of a volume that was to be removed is still there.
    #[error("volume {name:?} is in the trash, and its content is still there: {what}")]
    Content {
        /// The name of the volume.
        name: String,
        /// Why the driver did not remove it.
        what: String,
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
    /// A text that cannot be the name of a container or a volume.
    #[error(transparent)]
    BadObjectName(#[from] BadObjectName),
}

/// The user of an object that cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A mount shows it, or a command works on it.
    Mount,
    /// A container is made of it, mounted or not.
    Container(String),
    /// A container engine mounted it, and did not unmount it yet.
    Engine,
    /// A claim of Kubernetes has it, mounted or not.
    Claim(String),
    /// A VolumeSnapshotContent of Kubernetes shows it.
    Content(String),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount => f.write_str("a mount"),
            Self::Engine => f.write_str("a container engine"),
            Self::Container(name) => write!(f, "container {name:?}"),
            Self::Claim(name) => write!(f, "claim {name:?}"),
            Self::Content(name) => write!(f, "volumesnapshotcontent {name:?}"),
        }
    }
}
