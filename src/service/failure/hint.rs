//! The next thing to try after an error.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

use super::super::holders::{self, Wanted};
use super::super::mounts;
use super::{Failure, Refusal};
use crate::catalog::error::{CatalogError, User};
use crate::error::{Errno, Error};
use crate::store::error::StoreError;
use crate::sys;
use crate::transfer::error::TransferError;
use crate::types::size;
use crate::volume::VolumeError;

impl Refusal {
    fn host_hint(&self) -> Option<String> {
        let (path, error) = self.host()?;
        // Other paths are those of archives, whose place the user chose.
        let is_of_root =
            matches!(self.store(), Some(StoreError::Host(_))) || matches!(self, Self::Catalog(_));
        Some(match (error.kind(), path) {
            (ErrorKind::NotFound, Some(path)) => format!("check the path {}", path.display()),
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, path) => {
                let free = path.and_then(free_at).unwrap_or_default();
                let other = if is_of_root { ", or use another data root: --root DIR" } else { "" };
                format!("free space there{free}{other}")
            }
            (ErrorKind::PermissionDenied, _) if is_of_root => {
                "run as root (sudo), or use a data root of your own: --root DIR".to_owned()
            }
            (ErrorKind::PermissionDenied, Some(path)) => {
                format!("run as root (sudo), or as the owner of {}", path.display())
            }
            (ErrorKind::ReadOnlyFilesystem, _) if is_of_root => {
                "use a data root on a writable file system: --root DIR".to_owned()
            }
            (ErrorKind::NotADirectory, _) => "a part of the path is a file: check it".to_owned(),
            (ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists, _) => {
                "choose another path, or remove what is there".to_owned()
            }
            (ErrorKind::ReadOnlyFilesystem, _) => {
                "choose a place on a writable file system".to_owned()
            }
            _ => return None,
        })
    }

    /// A hint about the next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if self.is_damage() {
            return Some("find the damage: lamina image verify".to_owned());
        }
        Some(match self {
            Self::Catalog(error) => return of_catalog(error).or_else(|| self.host_hint()),
            Self::Volume(VolumeError::Busy { path }) => busy(path),
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
            Self::Transfer(error) => return of_transfer(error).or_else(|| self.host_hint()),
            Self::Backup(error) => return error.hint().or_else(|| self.host_hint()),
            Self::Full { error, .. } => return error.hint(),
            _ => return self.host_hint(),
        })
    }
}

fn of_catalog(error: &CatalogError) -> Option<String> {
    Some(match error {
        CatalogError::Database { is_damage: true, path, .. } => format!(
            "move it away, and build it again from the volumes: mv {0} {0}.damaged; lamina volume \
             recover",
            path.display()
        ),
        CatalogError::Database { path, .. } => format!(
            "{} has to be writable for this user, with free space; or use another data root: \
             --root DIR",
            path.parent().unwrap_or(path).display()
        ),
        CatalogError::Locked { path } => {
            format!("try again, or see who has it open: fuser -v {}", path.display())
        }
        CatalogError::Newer { .. } => "use the later version of lamina".to_owned(),
        CatalogError::Changed { .. } => "try again".to_owned(),
        CatalogError::HalfRolledBack { name, snapshot, path } => format!(
            "complete it: lamina container rollback {name} {snapshot}; or remove {}, to use it as \
             it is",
            path.display()
        ),
        CatalogError::Missing { kind: "snapshot", .. } => {
            "list them: lamina volume snapshot ls".to_owned()
        }
        CatalogError::Missing { kind: "removed volume", .. } => {
            "list them: lamina volume ls --trash".to_owned()
        }
        CatalogError::Missing { kind, .. } => format!("list them: lamina {kind} ls"),
        CatalogError::Exists { .. } => "choose another name".to_owned(),
        CatalogError::OtherLayers { id } => format!("lamina image rm {id}"),
        CatalogError::InUse { by, name, .. } => in_use(by, name),
        _ => return None,
    })
}

fn of_transfer(error: &TransferError) -> Option<String> {
    let hint = match error.root() {
        TransferError::Other { .. }
        | TransferError::OtherDigest(_)
        | TransferError::Damaged { .. } => "it was changed or damaged on the way: fetch it again",
        TransferError::Truncated { .. } | TransferError::Lacks { .. } => {
            "it is incomplete: fetch it again"
        }
        TransferError::Malformed { .. } => {
            "it has to be what docker save, podman save, skopeo copy or tar writes"
        }
        TransferError::Registry { .. } => {
            "check the name, and that the registry can be reached from here"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

impl Failure {
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
                "load the module: modprobe fuse; a container needs --device /dev/fuse".to_owned()
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
            Self::Image { error, name, .. } => return of_image(name, error),
            Self::Volume { error, .. } | Self::Container { error, .. } => return error.hint(),
            Self::Layer { error, .. } | Self::Ephemeral { error, .. } => return error.hint(),
            Self::Path { path, error, .. } if error.is(Errno::NOENT) => {
                format!("check the path {}", path.display())
            }
            Self::Path { path, error, .. } if error.is(Errno::ACCESS) => {
                format!("run as root (sudo), or as the owner of {}", path.display())
            }
            Self::Path { error, .. } | Self::Target { error, .. } if error.is(Errno::NOTDIR) => {
                "name a directory".to_owned()
            }
            Self::Unmount { error, .. } if error.is(Errno::PERM) => {
                "run as root (sudo), or as the user who mounted it".to_owned()
            }
            _ => return None,
        })
    }
}

fn of_image(name: &str, error: &Refusal) -> Option<String> {
    Some(match error.store() {
        _ if error.is_damage() => {
            format!("find the damage: lamina image verify {name}; then import the image again")
        }
        Some(StoreError::Missing { kind: "layer", .. }) => {
            "import or pull the image again".to_owned()
        }
        _ => return error.hint(),
    })
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

/// The free space of the file system of a path, which need not exist.
fn free_at(path: &Path) -> Option<String> {
    let there = path.ancestors().find_map(|path| sys::file::find_directory(path).ok())?;
    let found = sys::file::fstatfs(there.as_fd()).ok()?;
    Some(format!(": {} are free", size::shown(found.available_bytes())))
}

/// Names the processes that use the mount on a path.
fn busy(path: &Path) -> String {
    let entries = mounts::read().unwrap_or_default();
    let users = entries.iter().rfind(|entry| entry.target == path).map(|entry| {
        holders::processes(Wanted { device: &entry.device, mount: None, is_shared: true })
    });
    let users: Vec<String> = users.iter().flatten().map(ToString::to_string).collect();
    match users.is_empty() {
        true => format!("find what uses it: fuser -vm {}", path.display()),
        false => format!("end what uses it: {}", users.join(", ")),
    }
}

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
