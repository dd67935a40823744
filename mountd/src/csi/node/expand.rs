//! The growth of a volume in use. The controller did it before, where there is one.

use laminafs::service::volumes::Volume;

use super::super::Driver;
use super::super::check::{self, Access};
use super::super::fault::Outcome;
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
    let range = request.capacity_range.as_ref();
    let (required, _) = check::range(range)?;
    let capability = request.volume_capability.as_ref();
    let access = capability.map(|capability| Access::new(Some(capability))).transpose()?;
    let volume = stats::volume(driver, id)?;
    if let Some(access) = &access {
        require_fit(&volume, access)?;
    }
    if !is_staged(driver, request, &volume)? {
        stats::find(driver, id, &volume, path)?;
    }
    // Without a range it is as large as the controller made it.
    let volume = match range {
        Some(_) if volume.size_bytes.is_some() => driver.grown(volume, range)?,
        _ => volume,
    };
    let bytes = volume.size_bytes.or(required).unwrap_or(0);
    let capacity_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
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
