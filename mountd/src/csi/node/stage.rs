//! Staging: a volume in use on this node.
//!
//! The record of it is a holder of the volume, `csi-stage:ARGUMENTS:PATH`, where the arguments are
//! a digest, since mount flags may be secret. It is in the catalogue from the moment at which the
//! volume is in use, so no step between can be lost.

use std::path::Path;

use laminafs::service::volumes::Volume;

use super::super::Driver;
use super::super::check::{self, Access};
use super::super::fault::{Fault, Outcome};
use super::super::wire::{
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse,
};
use super::{digest, find, group, require_fit};

const PREFIX: &str = "csi-stage:";

/// The path of a holder that is a staging.
fn path_of(holder: &str) -> Option<&Path> {
    let (_, path) = holder.strip_prefix(PREFIX)?.split_once(':')?;
    Some(Path::new(path))
}

/// The holder of a staging.
fn holder(access: &Access, path: &Path) -> String {
    let mount = access.mount.clone().unwrap_or_default();
    let kind = if access.is_block() { "block" } else { "mount" };
    let texts = [kind, access.mode.as_str_name(), &mount.fs_type, &mount.volume_mount_group];
    let arguments = digest(texts.into_iter().chain(mount.mount_flags.iter().map(String::as_str)));
    format!("{PREFIX}{arguments}:{}", path.display())
}

/// The stagings of a volume at a path: at most one, unless an older process left another.
fn at(driver: &Driver, volume: &Volume, path: &Path) -> Outcome<Vec<String>> {
    let mut holders = driver.volumes.holders(volume)?;
    holders.retain(|holder| path_of(holder) == Some(path));
    Ok(holders)
}

/// Whether a volume is staged at a path.
///
/// # Errors
/// `INTERNAL`.
pub(super) fn is_staged(driver: &Driver, volume: &Volume, path: &Path) -> Outcome<bool> {
    Ok(!at(driver, volume, path)?.is_empty())
}

/// Takes a volume into use on this node.
///
/// # Errors
/// Those of the specification.
pub(super) fn stage(
    driver: &Driver,
    request: &NodeStageVolumeRequest,
) -> Outcome<NodeStageVolumeResponse> {
    check::required("volume_id", &request.volume_id)?;
    let path = check::path("staging_target_path", &request.staging_target_path)?;
    let access = Access::new(request.volume_capability.as_ref())?;
    group(&access)?;
    let volume = driver.volume(&request.volume_id)?;
    require_fit(&volume, &access)?;
    let holder = holder(&access, &path);
    if at(driver, &volume, &path)?.iter().any(|known| *known != holder) {
        return Err(Fault::exists(format!(
            "volume {} is staged at {path:?} with other arguments: unstage it first",
            volume.name
        )));
    }
    // Also if it is staged: its process may have died.
    match access.is_block() {
        true => driver.volumes.publish_device(&volume.name, &holder)?,
        false => driver.volumes.publish(&volume.name, &holder)?,
    };
    Ok(NodeStageVolumeResponse {})
}

/// Ends the use of a volume on this node. A volume that is gone is not in use.
///
/// # Errors
/// Those of the specification.
pub(super) fn unstage(
    driver: &Driver,
    request: &NodeUnstageVolumeRequest,
) -> Outcome<NodeUnstageVolumeResponse> {
    check::required("volume_id", &request.volume_id)?;
    let path = check::path("staging_target_path", &request.staging_target_path)?;
    if let Some(volume) = find(driver, &request.volume_id)? {
        for holder in at(driver, &volume, &path)? {
            driver.volumes.unpublish(&volume.name, &holder)?;
        }
    }
    Ok(NodeUnstageVolumeResponse {})
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::volume_capability::MountVolume;
    use super::super::super::wire::volume_capability::access_mode::Mode;
    use super::*;

    #[test]
    fn a_holder_names_its_path_and_hides_its_flags() {
        let with = |flags: &[&str]| Access {
            mount: Some(MountVolume {
                mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
                ..MountVolume::default()
            }),
            mode: Mode::SingleNodeWriter,
        };
        let path = Path::new("/a:b/c\n d");
        let one = holder(&with(&["password=hunter2"]), path);
        assert_eq!(path_of(&one), Some(path));
        assert!(!one.contains("hunter2"));
        assert_eq!(one, holder(&with(&["password=hunter2"]), path));
        assert_ne!(one, holder(&with(&[]), path));
        assert_ne!(one, holder(&Access { mount: None, mode: Mode::SingleNodeWriter }, path));
        assert_eq!(path_of("csi:/a:b"), None);
    }
}
