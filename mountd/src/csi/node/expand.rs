//! The growth of a volume in use. The controller did it before, where there is one.

use laminafs::service::volumes::{Limits, Volume};

use super::super::Driver;
use super::super::check::{self, Access};
use super::super::fault::{Fault, Outcome};
use super::super::wire::{NodeExpandVolumeRequest, NodeExpandVolumeResponse};
use super::{require_fit, stage, stats};

/// Makes a volume at least as large as required.
///
/// # Errors
/// Those of the specification.
pub(super) fn expand(
    driver: &Driver,
    request: &NodeExpandVolumeRequest,
) -> Outcome<NodeExpandVolumeResponse> {
    let (id, path) = (request.volume_id.as_str(), request.volume_path.as_str());
    stats::require_both(id, path)?;
    let (required, limit) = check::range(request.capacity_range.as_ref())?;
    let capability = request.volume_capability.as_ref();
    let access = capability.map(|capability| Access::new(Some(capability))).transpose()?;
    let volume = stats::volume(driver, id)?;
    if let Some(access) = &access {
        require_fit(&volume, access)?;
    }
    if !is_staged(driver, request, &volume)? {
        stats::find(driver, id, &volume, path)?;
    }
    let size = grown(driver, volume, required, limit)?;
    let capacity_bytes = i64::try_from(size).unwrap_or(i64::MAX);
    Ok(NodeExpandVolumeResponse { capacity_bytes })
}

/// Whether the staging path of a request is one of the volume. For a device `volume_path` may be
/// its node then.
fn is_staged(driver: &Driver, request: &NodeExpandVolumeRequest, volume: &Volume) -> Outcome<bool> {
    let staging = &request.staging_target_path;
    if staging.is_empty() {
        return Ok(false);
    }
    stage::is_staged(driver, volume, &check::path("staging_target_path", staging)?)
}

/// The size that a volume has afterwards; one without a limit has what is required.
fn grown(
    driver: &Driver,
    volume: Volume,
    required: Option<u64>,
    limit: Option<u64>,
) -> Outcome<u64> {
    let Some(size) = volume.size_bytes else { return Ok(required.unwrap_or(0)) };
    let name = &volume.name;
    if limit.is_some_and(|limit| limit < size) {
        let text = format!("volume {name} has {size} bytes already: a volume does not shrink");
        return Err(Fault::range(text));
    }
    match required {
        Some(required) if required > size => {
            let limits = Limits { size_bytes: Some(required), inodes: None };
            let volume = driver.volumes.resize(name, limits)?;
            Ok(volume.size_bytes.unwrap_or(required))
        }
        _ => Ok(size),
    }
}
