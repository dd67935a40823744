//! Errors of the service, with hints about the next thing to try.

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
    #[error("{what} {}: {error}", path.display())]
    Path { what: &'static str, path: PathBuf, error: Error },
    #[error("work directory {}: {error}", path.display())]
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
    #[error("mount point {}: {error}", path.display())]
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
    #[error("image {name:?} below {}: {error}", root.display())]
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
            _ => None,
        }
    }

    /// The error of the operating system, and its path if it is known.
    fn host(&self) -> Option<(Option<&Path>, &io::Error)> {
        if let Some(error) = self.store() {
            return match error {
                StoreError::Host(HostError { path, source }) => Some((Some(path), source)),
                StoreError::Stream { source, .. } => Some((None, source)),
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
            Self::Transfer(error) => match error.root() {
                TransferError::Host(HostError { path, source }) => Some((Some(path), source)),
                TransferError::Stream { source, .. } => Some((None, source)),
                _ => None,
            },
            _ => None,
        }
    }

    fn host_hint(&self) -> Option<String> {
        let (path, error) = self.host()?;
        // Other paths are those of archives, whose place the user chose.
        let is_of_root = self.store().is_some() || matches!(self, Self::Catalog(_));
        Some(match (error.kind(), path) {
            (ErrorKind::NotFound, Some(path)) => format!("check the path {}", path.display()),
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) if is_of_root => {
                "free space there, or use another data root: --root DIR".to_owned()
            }
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => "free space there".to_owned(),
            (ErrorKind::PermissionDenied, _) if is_of_root => {
                "run as root, or use a data root of your own: --root DIR".to_owned()
            }
            (ErrorKind::ReadOnlyFilesystem, _) if is_of_root => {
                "use a data root on a writable file system: --root DIR".to_owned()
            }
            _ => return None,
        })
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

    /// A hint about the next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if self.is_damage() {
            return Some("find the damage: lamina image verify".to_owned());
        }
        Some(match self {
            Self::Catalog(CatalogError::Database { is_damage: true, path, .. }) => format!(
                "move it away, and build it again from the volumes: mv {0} {0}.damaged; lamina \
                 volume recover",
                path.display()
            ),
            Self::Catalog(CatalogError::Newer { .. }) => {
                "use the later version of lamina".to_owned()
            }
            Self::Volume(VolumeError::Busy { .. }) => {
                "end the processes that use it: fuser -vm, or lsof, lists them".to_owned()
            }
            Self::Volume(VolumeError::IsDevice { .. }) => {
                "create one with files: lamina volume create --driver image --opt fs=ext4"
                    .to_owned()
            }
            Self::Volume(VolumeError::NotTogether { .. }) => {
                "stop its users, or leave it out".to_owned()
            }
            Self::Volume(VolumeError::NoSpace { .. }) => {
                "free space there, choose a smaller size, or use --opt overcommit=true".to_owned()
            }
            Self::Catalog(CatalogError::Changed { .. }) => "try again".to_owned(),
            Self::Catalog(CatalogError::HalfRolledBack { name, snapshot, path }) => format!(
                "complete it: lamina container rollback {name} {snapshot}; or remove {}, to use \
                 it as it is",
                path.display()
            ),
            Self::Catalog(CatalogError::Missing { kind: "snapshot", .. }) => {
                "list them: lamina volume snapshot ls".to_owned()
            }
            Self::Catalog(CatalogError::Missing { kind: "removed volume", .. }) => {
                "list them: lamina volume ls --trash".to_owned()
            }
            Self::Catalog(CatalogError::Missing { kind, .. }) => {
                format!("list them: lamina {kind} ls")
            }
            Self::Catalog(CatalogError::Exists { .. }) => "choose another name".to_owned(),
            Self::Catalog(CatalogError::OtherLayers { id }) => format!("lamina image rm {id}"),
            Self::Catalog(CatalogError::InUse { by, name, .. }) => in_use(by, name),
            Self::Transfer(error) => match error.root() {
                TransferError::Other { .. }
                | TransferError::OtherDigest(_)
                | TransferError::Damaged { .. } => {
                    "it was changed or damaged on the way: fetch it again".to_owned()
                }
                TransferError::Truncated { .. } | TransferError::Lacks { .. } => {
                    "it is incomplete: fetch it again".to_owned()
                }
                TransferError::Registry { .. } => {
                    "check the name, and that the registry can be reached from here".to_owned()
                }
                _ => return self.host_hint(),
            },
            Self::Backup(error) => return error.hint().or_else(|| self.host_hint()),
            _ => return self.host_hint(),
        })
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

    /// A hint about the next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Work { path, error } if error.is(Errno::NOENT) => {
                format!("create it: mkdir -p {}", path.display())
            }
            Self::Apart { upper, .. } => {
                format!("put the work directory on the file system of {}", upper.display())
            }
            Self::Nested { .. } => "use two separate directories of one file system".to_owned(),
            Self::Overlap { .. } => {
                "use directories that are not inside each other; an upper may be inside a lower"
                    .to_owned()
            }
            Self::Inside { .. } => "choose a mount point outside the layers".to_owned(),
            Self::InUse { holder, .. } => format!("unmount it first: umount {holder}"),
            Self::Unclean { mark, .. } => format!(
                "use an empty upper directory, or accept its content: rmdir {}",
                mark.display()
            ),
            Self::Target { path, error } if error.is(Errno::NOENT) => {
                format!("create it: mkdir -p {}", path.display())
            }
            Self::Target { path, error } if error.is(Errno::LOOP) => {
                format!("it is a symbolic link: mount on $(realpath {})", path.display())
            }
            Self::Device { error } if error.is(Errno::NOENT) => {
                "load the module: modprobe fuse".to_owned()
            }
            Self::Device { .. } => "run as root, or let this user open /dev/fuse".to_owned(),
            Self::Mount { error, .. } if error.is(Errno::PERM) || error.is(Errno::ACCESS) => {
                "run as root, or install fusermount3 (package fuse3)".to_owned()
            }
            Self::Mount { error, .. } if error.is(Errno::LOOP) || error.is(Errno::STALE) => {
                "its path changed meanwhile: try again".to_owned()
            }
            Self::NotMounted { .. } => "list the mounts: lamina status".to_owned(),
            Self::Foreign { path, .. } => format!("umount {}", path.display()),
            Self::Busy { path, .. } => {
                format!("end these processes, or use lamina umount --lazy {}", path.display())
            }
            Self::Late { .. } => "check later: lamina status".to_owned(),
            Self::NoPlace { path, .. } => {
                format!("add an upper directory, or a layer that has {path}")
            }
            Self::NoVolume { name } => format!("create it: lamina volume create {name}"),
            Self::Subpath { volume, subpath, error } => subpath_hint(volume, subpath, error),
            Self::NoLayer => "name one: --lower DIR, --image NAME, or lowerdir=DIR".to_owned(),
            Self::Image { error, name, .. } if error.is_damage() => {
                format!("find the damage: lamina image verify {name}; then import the image again")
            }
            Self::Image { error, .. }
            | Self::Volume { error, .. }
            | Self::Container { error, .. } => return error.hint(),
            Self::Path { path, error, .. } if error.is(Errno::NOENT) => {
                format!("check the path {}", path.display())
            }
            _ => return None,
        })
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

fn subpath_hint(volume: &str, subpath: &str, error: &Error) -> String {
    match error.errno() {
        Errno::NOENT => format!(
            "make {subpath} first: mount the whole volume, with --volume {volume}:/PATH, and \
             create it there"
        ),
        Errno::AGAIN => "try again".to_owned(),
        _ => format!("name a directory or file inside volume {volume}, not a link out of it"),
    }
}

/// Formats each item as a line below a message.
fn lines(by: &[String]) -> String {
    by.iter().map(|one| format!("\n  {one}")).collect()
}

/// The result of an operation of the service.
pub type ServiceResult<T> = Result<T, Failure>;

/// What ends the use of an object by a user.
fn in_use(by: &User, name: &str) -> String {
    match by {
        User::Container(name) => {
            format!("remove the container first: lamina container rm {name}")
        }
        User::Engine => format!(
            "remove it there: docker volume rm {name}; or, if the engine is gone: lamina volume rm \
             --force {name}"
        ),
        User::Claim(claim) => {
            let (namespace, claim) = claim.split_once('/').unwrap_or(("default", claim));
            format!(
                "delete the claim: kubectl delete -n {namespace} pvc {claim}; or, without it: \
                 lamina volume rm --force {name}"
            )
        }
        User::Content(content) => format!(
            "delete what shows it: kubectl delete volumesnapshotcontent {content}; or, without it: \
             lamina volume snapshot rm --force {name}"
        ),
        User::Mount => "unmount it first: lamina status lists the mounts".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_each_wing_says_what_happened_and_what_to_try() {
        let missing = |kind| CatalogError::Missing { kind, name: "x".to_owned() };
        let damaged = || StoreError::Damaged { path: "/p".into(), what: "differs".to_owned() };
        let verify = "find the damage: lamina image verify";
        let cases: [(Refusal, &str, &str); 6] = [
            (missing("image").into(), "image \"x\" does not exist", "lamina image ls"),
            (missing("container").into(), "container \"x\" does not exist", "lamina container ls"),
            (damaged().into(), "/p: differs", verify),
            (CatalogError::from(damaged()).into(), "/p: differs", verify),
            (TransferError::from(damaged()).into(), "/p: differs", verify),
            (
                CatalogError::InUse { kind: "volume", name: "v".to_owned(), by: User::Mount }
                    .into(),
                "volume \"v\" is in use by a mount",
                "unmount it first: lamina status lists the mounts",
            ),
        ];
        for (refusal, text, hint) in cases {
            assert_eq!(refusal.to_string(), text);
            assert!(refusal.hint().is_some_and(|found| found.ends_with(hint)), "{text}");
        }
    }
}
