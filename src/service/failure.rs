//! Errors of the service: what happened, to which object, and the next thing to try.

mod hint;
mod object;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::backup::BackupError;
use crate::catalog::error::{CatalogError, User};
use crate::error::{Errno, Error, HostError};
use crate::store::error::StoreError;
use crate::transfer::error::TransferError;
use crate::volume::VolumeError;

/// An error of the store, of the catalog or of a transfer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error of images, their names, containers or volumes.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// An import or an export failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A volume driver failed.
    #[error(transparent)]
    Volume(VolumeError),
    /// A backup, or a restore, failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The host has no space for an object whose size is known.
    #[error("{error}; up to {} are needed", crate::types::size::shown(*needed_bytes))]
    Full {
        /// The error of the write.
        error: Box<Refusal>,
        /// The size of the object.
        needed_bytes: u64,
    },
}

impl From<VolumeError> for Refusal {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Catalog(error) => Self::Catalog(error),
            other => Self::Volume(other),
        }
    }
}

/// An error for people: what happened, and to which object.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the objects that the messages name
pub enum Failure {
    #[error("{what} {}: {}", path.display(), plain(error))]
    Path { what: &'static str, path: PathBuf, error: Error },
    #[error("work directory {}: {}", path.display(), plain(error))]
    Work { path: PathBuf, error: Error },
    #[error("upper directory {} and work directory {} are on different file systems",
        upper.display(), work.display())]
    Apart { upper: PathBuf, work: PathBuf },
    #[error("upper directory {} and work directory {} overlap", upper.display(), work.display())]
    Nested { upper: PathBuf, work: PathBuf },
    #[error("{what} (ELOOP)")]
    Overlap { what: String },
    #[error("{what} {} is inside the mount point {}", path.display(), target.display())]
    Inside { what: &'static str, path: PathBuf, target: PathBuf },
    #[error("{what} {} is in use by the mount on {}{}", path.display(), holder,
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { what: &'static str, path: PathBuf, holder: String, pid: Option<u32> },
    #[error("upper directory {} was left unclean by a volatile mount", path.display())]
    Unclean { path: PathBuf, mark: PathBuf },
    #[error("mount point {}: {}", path.display(), plain(error))]
    Target { path: PathBuf, error: Error },
    #[error("/dev/fuse: {error}")]
    Device { error: Error },
    #[error("mounting on {}: {error}", path.display())]
    Mount { path: PathBuf, error: Error },
    #[error("unmounting {}: {error}", path.display())]
    Unmount { path: PathBuf, error: Error },
    #[error("{} is not a mount point", path.display())]
    NotMounted { path: PathBuf },
    #[error("{} is a mount of type {what}, not of lamina", path.display())]
    Foreign { path: PathBuf, what: String },
    #[error("{} is in use{}", path.display(), lines(by))]
    Busy { path: PathBuf, by: Vec<String> },
    #[error("the daemon of {}{} has not ended in time{}", path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), lines(by))]
    Late { path: PathBuf, pid: Option<u32>, by: Vec<String> },
    #[error("{path} in the mount: {error}")]
    Graft { path: String, error: Error },
    #[error("{what} needs the directory {path}, which the read-only mount does not have")]
    NoPlace { path: String, what: String },
    #[error("volume {name:?}: {error}")]
    Volume { name: String, error: Box<Refusal> },
    #[error("container {name:?}: {error}")]
    Container { name: String, error: Box<Refusal> },
    #[error("volume {name:?} cannot be filled from the image: {error}")]
    Fill { name: String, error: Error },
    #[error("volume {name:?} does not exist")]
    NoVolume { name: String },
    #[error("subpath {subpath:?} of volume {volume:?} {}", subpath_reason(error))]
    Subpath { volume: String, subpath: String, error: Error },
    #[error("{}", of_image(name, root, error))]
    Image { name: String, root: PathBuf, error: Box<Refusal> },
    #[error("option {option} is not possible here: {reason}")]
    Driver { option: String, reason: String },
    #[error("{}: {error}", path.display())]
    Layer { path: PathBuf, error: Box<Refusal> },
    #[error("an ephemeral upper below {}: {error}", root.display())]
    Ephemeral { root: PathBuf, error: Box<Refusal> },
    #[error("no layer: a mount needs a lower directory or an image")]
    NoLayer,
    #[error("{what}: {error}")]
    System { what: &'static str, error: Error },
}

impl Refusal {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) | Self::Catalog(CatalogError::Store(error)) => Some(error),
            Self::Transfer(error) => match error.root() {
                TransferError::Store(error) => Some(error),
                _ => None,
            },
            Self::Full { error, .. } => error.store(),
            _ => None,
        }
    }

    /// The error of the operating system, and its path if it is known.
    fn host(&self) -> Option<(Option<&Path>, &io::Error)> {
        if let Some(error) = self.store() {
            return match error {
                StoreError::Host(HostError { path, source }) => Some((Some(path), source)),
                StoreError::Stream { source, .. } => {
                    let input = match self {
                        Self::Transfer(error) => error.input(),
                        _ => None,
                    };
                    Some((input, source))
                }
                _ => None,
            };
        }
        match self {
            Self::Catalog(CatalogError::Host(HostError { path, source })) => {
                Some((Some(path), source))
            }
            Self::Volume(VolumeError::Host(HostError { path, source })) => {
                Some((Some(path), source))
            }
            Self::Backup(BackupError::Host(HostError { path, source })) => {
                Some((Some(path), source))
            }
            Self::Full { error, .. } => error.host(),
            Self::Transfer(error) => match error.root() {
                TransferError::Host(HostError { path, source }) => Some((Some(path), source)),
                TransferError::Stream { source, .. } => Some((error.input(), source)),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_damage(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Damaged { .. }))
            || matches!(self.store(), Some(StoreError::Damaged { .. }))
    }

    /// Whether there is no object of the requested name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Missing { .. }))
            || matches!(self.store(), Some(StoreError::Missing { .. }))
    }

    /// Whether the host has no space for what was requested.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        matches!(self, Self::Volume(VolumeError::NoSpace { .. }))
            || self.host().is_some_and(|(_, error)| is_full(error.kind()))
    }

    /// Adds the size of the object if the host has no space for it.
    #[must_use]
    pub fn needing(self, bytes: u64) -> Self {
        match self.is_full() && bytes > 0 && !matches!(self, Self::Full { .. }) {
            true => Self::Full { error: Box::new(self), needed_bytes: bytes },
            false => self,
        }
    }

    /// The kind and the name of an object that cannot be removed because a mount shows it.
    #[must_use]
    pub fn mounted(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Catalog(CatalogError::InUse { kind, name, by: User::Mount }) => {
                Some((kind, name))
            }
            _ => None,
        }
    }

    /// Whether an object cannot be removed because it has a user.
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::InUse { .. }))
            || matches!(
                self,
                Self::Volume(
                    VolumeError::Busy { .. }
                        | VolumeError::Attached { .. }
                        | VolumeError::NotTogether { .. }
                )
            )
    }
}

impl Failure {
    /// Wraps an error of a path.
    pub(crate) fn path(what: &'static str, path: &Path) -> impl FnOnce(Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Path { what, path, error }
    }

    /// Wraps an error without a path.
    pub(crate) fn system(what: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self::System { what, error }
    }
}

/// An error of a path that a user named: the system call says nothing to them.
fn plain(error: &Error) -> String {
    match error {
        Error::Os { errno, .. } => errno.to_string(),
        other => other.to_string(),
    }
}

/// An error of an image of a data root.
fn of_image(name: &str, root: &Path, error: &Refusal) -> String {
    let root = root.display();
    match error {
        Refusal::Catalog(CatalogError::Missing { kind: "image", .. }) => {
            format!("image {name:?} does not exist below {root}")
        }
        error => format!("image {name:?} below {root}: {error}"),
    }
}

/// What is wrong with a subpath, after its name.
fn subpath_reason(error: &Error) -> String {
    match error.errno() {
        Errno::NOENT => "does not exist".to_owned(),
        Errno::XDEV => "leads out of the volume".to_owned(),
        Errno::NXIO => "is neither a directory nor a file".to_owned(),
        Errno::AGAIN => "changes all the time".to_owned(),
        _ => format!("cannot be opened: {error}"),
    }
}

/// Formats each item as a line below a message.
fn lines(by: &[String]) -> String {
    by.iter().map(|one| format!("\n  {one}")).collect()
}

/// The result of an operation of the service.
pub type ServiceResult<T> = Result<T, Failure>;
