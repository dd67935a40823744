//! What is wrong with volumes, and with the storage of this node: the alpha calls of CSI 1.13.
//!
//! They take the place of the conditions of 1.12, so a driver offers the one or the other. A
//! health without entries means that nothing is known to be wrong.

use std::path::Path;

use laminafs::service::volumes::{Volume, is_device};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;

use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::node::Place;
use super::wire::volume_health::VolumeHealthEntry as Entry;
use super::wire::{
    ControllerListVolumeHealthResponse, NodeGetVolumeHealthRequest, StorageBackendHealth,
    StorageHealthErrorType as Storage, VolumeHealth, VolumeHealthErrorType as Kind,
};
use super::{check, node, page, record};

/// A file system with less than one in so many bytes free can write no more for long.
const LEAST_FREE: u64 = 100;

fn entry(kind: Kind, reason: &str, message: String) -> Entry {
    Entry { status: kind.into(), reason: reason.to_owned(), message }
}

/// Refuses a call that this driver was not asked to offer.
///
/// # Errors
/// `UNIMPLEMENTED`.
pub fn require(driver: &Driver) -> Outcome<()> {
    match driver.has_alpha {
        true => Ok(()),
        false => Err(Fault::unimplemented(
            "the alpha calls of CSI 1.13 are off: start lamina serve with --csi-alpha",
        )),
    }
}

/// What is wrong with a path that shows a volume.
fn of_path(path: &Path) -> Option<Entry> {
    match statvfs(path) {
        Ok(_) => None,
        Err(Errno::NOTCONN) => {
            let text = format!("the process that serves {path:?} has died: publish it again");
            Some(entry(Kind::Inaccessible, "MountDisconnected", text))
        }
        Err(error) => {
            let text = format!("{path:?} cannot be read: {error}");
            Some(entry(Kind::Inaccessible, "PathUnreadable", text))
        }
    }
}

/// What is wrong with a volume wherever it is used.
fn of_volume(driver: &Driver, volume: &Volume) -> Vec<Entry> {
    let directory = volume.directory();
    if !directory.is_dir() {
        let text = format!("the directory {} is gone", directory.display());
        return vec![entry(Kind::DataLoss, "DirectoryMissing", text)];
    }
    let is_used = driver.published(volume).is_ok_and(|nodes| !nodes.is_empty());
    let shows = is_used && !is_device(volume);
    shows.then(|| of_path(&volume.mountpoint)).flatten().into_iter().collect()
}

impl Driver {
    /// The health of a volume.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn health(&self, id: &str) -> Outcome<VolumeHealth> {
        let volume = self.volume(id)?;
        let health_statuses = of_volume(self, &volume);
        Ok(VolumeHealth { volume_id: id.to_owned(), health_statuses })
    }

    /// The volumes with something wrong, in pages.
    ///
    /// # Errors
    /// Those of [`page::of`].
    pub(super) fn list_health(
        &self,
        at: (i32, &str),
    ) -> Outcome<ControllerListVolumeHealthResponse> {
        let mut all = self.volumes.list()?;
        all.retain(record::is_requested);
        let health = |volume: Volume| VolumeHealth {
            health_statuses: of_volume(self, &volume),
            volume_id: volume.id,
        };
        let mut all: Vec<VolumeHealth> = all.into_iter().map(health).collect();
        all.retain(|one| !one.health_statuses.is_empty());
        let (entries, next_token) = page::of(all, |one| one.volume_id.as_str(), at)?;
        Ok(ControllerListVolumeHealthResponse { entries, next_token })
    }

    /// The health of a volume on this node, also of one whose publication failed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_FOUND`.
    pub(super) fn node_health(
        &self,
        request: &NodeGetVolumeHealthRequest,
    ) -> Outcome<VolumeHealth> {
        let id = request.volume_id.as_str();
        check::required("volume_id", id)?;
        let volume = node::volume(self, id)?;
        let mut health_statuses = of_volume(self, &volume);
        let target = request.volume_publish_path.as_str();
        if !target.is_empty() {
            let seen = match node::place(self, id, &volume, target)? {
                Place::Mounted(path) if is_device(&volume) => {
                    let text = || format!("the device at {path:?} is gone: publish it again");
                    let is_gone = !path.exists();
                    is_gone.then(|| entry(Kind::Inaccessible, "DeviceMissing", text()))
                }
                Place::Mounted(path) => of_path(&path),
                Place::Unmounted => {
                    let text = format!("nothing is mounted at {target:?}: publish it again");
                    Some(entry(Kind::Inaccessible, "NotMounted", text))
                }
            };
            let is_new =
                |one: &Entry| health_statuses.iter().all(|known| known.reason != one.reason);
            let seen = seen.filter(is_new);
            health_statuses.extend(seen);
        }
        Ok(VolumeHealth { volume_id: id.to_owned(), health_statuses })
    }

    /// What is wrong with the data root of this node.
    pub(super) fn storage_health(&self) -> Vec<StorageBackendHealth> {
        let root = self.volumes.root();
        let of = |status: Storage, reason: &str, message: String| StorageBackendHealth {
            status: status.into(),
            reason: reason.to_owned(),
            message,
            volume_capability: None,
        };
        let shown = root.display();
        let found = match statvfs(root) {
            Err(error) => {
                let text = format!("{shown} cannot be read: {error}");
                return vec![of(Storage::StorageUnreachable, "DataRootUnreadable", text)];
            }
            Ok(found) => found,
        };
        let mut all = Vec::new();
        if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let text = format!("the file system of {shown} is read-only");
            all.push(of(Storage::StorageDegraded, "ReadOnlyFileSystem", text));
        }
        if found.f_bavail < found.f_blocks / LEAST_FREE {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("the file system of {shown} has {free} bytes free");
            all.push(of(Storage::StorageDegraded, "LowSpace", text));
        }
        all
    }
}
