//! What a volume on this node uses, and how it is.

use std::path::{Path, PathBuf};

use laminafs::service::publication::Publication;
use laminafs::service::volumes::{Volume, is_device};

use super::super::Driver;
use super::super::check;
use super::super::fault::{Fault, Outcome};
use super::super::wire::volume_usage::Unit;
use super::super::wire::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage,
};
use super::{inline, publications, publish, stage};

/// Where a volume is on this node.
pub(super) enum At {
    /// At a target path, and whether it is mounted there.
    Published(Publication, bool),
    /// At a staging path.
    Staged,
}

/// The volume of an id, also an inline one.
///
/// # Errors
/// `INVALID_ARGUMENT`, `NOT_FOUND`.
pub(in crate::csi) fn volume(driver: &Driver, id: &str) -> Outcome<Volume> {
    match driver.volume(id) {
        Err(fault) if fault.code() == tonic::Code::NotFound => {
            inline::find(driver, id)?.ok_or(fault)
        }
        found => found,
    }
}

/// Refuses a request without a volume, or without a path.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn require_both(id: &str, path: &str) -> Outcome<()> {
    check::required("volume_id", id)?;
    check::required("volume_path", path)
}

/// Finds a volume at a path of this node. It is not at what cannot be a path.
///
/// # Errors
/// `NOT_FOUND`.
pub(super) fn find(driver: &Driver, id: &str, volume: &Volume, path: &str) -> Outcome<At> {
    let missing = || Fault::missing(format!("volume {} is not at {path:?}", volume.name));
    let path = &check::path("volume_path", path).map_err(|_| missing())?;
    if let Some((publication, is_mounted)) = publications(driver)?.find(path)?
        && publish::is_of(&publication, id, Some(volume))
    {
        return Ok(At::Published(publication, is_mounted));
    }
    match stage::is_staged(driver, volume, path)? {
        true => Ok(At::Staged),
        false => Err(missing()),
    }
}

/// Whether a target path shows a volume.
pub(in crate::csi) enum Place {
    /// It does, at this path.
    Mounted(PathBuf),
    /// Nothing is mounted there, whether the volume was ever published at it or not.
    Unmounted,
}

/// Whether a target path shows a volume.
///
/// # Errors
/// `INVALID_ARGUMENT` for a text that is not a path; those of the records.
pub(in crate::csi) fn place(
    driver: &Driver,
    id: &str,
    volume: &Volume,
    target: &str,
) -> Outcome<Place> {
    check::path("volume_publish_path", target)?;
    match find(driver, id, volume, target) {
        Ok(At::Published(publication, true)) => Ok(Place::Mounted(publication.target)),
        Ok(_) => Ok(Place::Unmounted),
        Err(fault) if fault.code() == tonic::Code::NotFound => Ok(Place::Unmounted),
        Err(fault) => Err(fault),
    }
}

/// The statistics of a volume at a path.
///
/// # Errors
/// Those of the specification.
pub(super) fn stats(
    driver: &Driver,
    request: &NodeGetVolumeStatsRequest,
) -> Outcome<NodeGetVolumeStatsResponse> {
    let (id, path) = (request.volume_id.as_str(), request.volume_path.as_str());
    require_both(id, path)?;
    let volume = volume(driver, id)?;
    let (shown, mut faults) = match find(driver, id, &volume, path)? {
        At::Published(publication, true) => (Some(publication.target), Vec::new()),
        At::Published(_, false) => {
            (None, vec![format!("nothing is mounted at {path:?}: publish the volume again")])
        }
        At::Staged => (None, Vec::new()),
    };
    let usage = match is_device(&volume) {
        true => device_usage(driver, &volume, &mut faults)?,
        false => file_usage(&volume, shown, &mut faults),
    };
    let message = match faults.is_empty() {
        true => "the volume is in order".to_owned(),
        false => faults.join("; "),
    };
    let volume_condition = Some(VolumeCondition { abnormal: !faults.is_empty(), message });
    Ok(NodeGetVolumeStatsResponse { usage, volume_condition })
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The total of a device; what is used of it only its users know.
fn device_usage(
    driver: &Driver,
    volume: &Volume,
    faults: &mut Vec<String>,
) -> Outcome<Vec<VolumeUsage>> {
    if driver.volumes.device(&volume.name)?.is_none() {
        faults.push(format!("volume {} is not attached: stage it again", volume.name));
    }
    let total = number(volume.size_bytes.unwrap_or(0));
    Ok(vec![VolumeUsage { total, unit: Unit::Bytes.into(), ..VolumeUsage::default() }])
}

/// The numbers of the volume itself. A target may show them through another process.
fn file_usage(
    volume: &Volume,
    shown: Option<PathBuf>,
    faults: &mut Vec<String>,
) -> Vec<VolumeUsage> {
    let mut ask = |path: &Path| match rustix::fs::statvfs(path) {
        Ok(found) => Some(found),
        Err(rustix::io::Errno::NOTCONN) => {
            faults.push(format!("the process that serves {path:?} has died: publish it again"));
            None
        }
        Err(error) => {
            faults.push(format!("{path:?} cannot be read: {error}"));
            None
        }
    };
    let there = shown.and_then(|shown| ask(&shown));
    let Some(found) = ask(&volume.mountpoint).or(there) else { return Vec::new() };
    let bytes = |blocks: u64| number(blocks.saturating_mul(found.f_frsize));
    vec![
        VolumeUsage {
            unit: Unit::Bytes.into(),
            total: bytes(found.f_blocks),
            available: bytes(found.f_bavail),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        },
        VolumeUsage {
            unit: Unit::Inodes.into(),
            total: number(found.f_files),
            available: number(found.f_favail),
            used: number(found.f_files.saturating_sub(found.f_ffree)),
        },
    ]
}
