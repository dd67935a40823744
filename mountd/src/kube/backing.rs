//! The volume of Lamina behind a PersistentVolume.

use std::path::Path;

use laminafs::claim::names::STAND_IN;
use laminafs::service::volumes::VolumeService;
use laminafs::service::{CatalogError, Refusal};
use laminafs::types::VolumeName;
use serde_json::Value;

use super::convert::CSI;
use super::meta::{meta, text};

/// The name that the annotation gives: that of the volume which stands in for a source that this
/// host cannot reach.
#[must_use]
pub fn stand_in(object: &Value) -> Option<&str> {
    meta(object, "annotations")?.get(STAND_IN)?.as_str()
}

/// The volume with the content: the one of the annotation, that of the handle of our own CSI
/// driver, or the one whose directory is the source. `None` if no volume of Lamina has it.
///
/// # Errors
/// Those of the catalogue; an invalid name.
pub fn volume(volumes: &VolumeService, object: &Value) -> Result<Option<VolumeName>, Refusal> {
    let named = |name: &str| -> Result<Option<VolumeName>, Refusal> {
        Ok(Some(name.parse().map_err(CatalogError::from)?))
    };
    if let Some(name) = stand_in(object) {
        return named(name);
    }
    if text(object, "/spec/csi/driver") == CSI {
        let handle = text(object, "/spec/csi/volumeHandle");
        // A handle is the id of a volume, or the name of one that was made without the driver.
        return match volumes.find_id(handle) {
            Err(refusal) if refusal.is_missing() => named(handle),
            found => Ok(Some(found?.name)),
        };
    }
    let paths = ["/spec/hostPath/path", "/spec/local/path"].map(|path| text(object, path));
    by_path(volumes, Path::new(paths.into_iter().find(|path| !path.is_empty()).unwrap_or_default()))
}

/// The volume that has its content in this directory of the host.
///
/// # Errors
/// Those of the catalogue.
pub fn by_path(volumes: &VolumeService, path: &Path) -> Result<Option<VolumeName>, Refusal> {
    if !path.starts_with(volumes.root()) {
        return Ok(None);
    }
    // Whatever its name: its content is there only while it is in use.
    let found = volumes.list()?.into_iter().find(|one| one.mountpoint == path);
    Ok(found.map(|found| found.name))
}
