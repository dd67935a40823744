//! The space of the host that images may still take.
//!
//! An image is sparse: it takes space as it is written. What an image was promised and has not
//! taken is not free for the next one, so that a volume never meets a full host before its own
//! limit, unless `overcommit=true` or something else fills the host.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::device::{IMAGE, open_directory};
use crate::error::FromHost;
use crate::sys;
use crate::volume::driver::Place;
use crate::volume::error::{Result, VolumeError};

/// Bytes of a block of `st_blocks`.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Refuses an image of `bytes`, of which `taken` are on the host already, without enough space.
pub(super) fn check(place: &Place, bytes: u64, taken: u64) -> Result<()> {
    let path = place.directory();
    let free = free(place)?.saturating_sub(promised(path)?);
    let needed = bytes.saturating_sub(taken);
    if needed <= free {
        return Ok(());
    }
    Err(VolumeError::NoSpace { path: path.to_owned(), needed_bytes: needed, free_bytes: free })
}

/// The bytes that are free for users on the file system of the volume.
pub(super) fn free(place: &Place) -> Result<u64> {
    let directory = open_directory(place)?;
    let stat =
        sys::file::fstatfs(directory.as_fd()).map_err(VolumeError::host(place.directory()))?;
    Ok(stat.bavail.saturating_mul(u64::from(stat.frsize)))
}

/// The bytes that the images of the other volumes may still take.
fn promised(own: &Path) -> Result<u64> {
    let Some(volumes) = own.parent().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(0);
    };
    let mut bytes = 0_u64;
    for entry in fs::read_dir(volumes).map_err(VolumeError::io(volumes))? {
        let entry = entry.map_err(VolumeError::io(volumes))?;
        let name = entry.file_name();
        // A snapshot (`NAME@..`) is never written.
        let is_snapshot = name.as_encoded_bytes().contains(&b'@');
        if is_snapshot || Some(name.as_os_str()) == own.file_name() {
            continue;
        }
        // What is no volume of this driver, or is removed meanwhile, has no image.
        let Ok(image) = fs::symlink_metadata(entry.path().join(IMAGE)) else { continue };
        if image.is_file() {
            let taken = image.blocks().saturating_mul(SECTOR_BYTES);
            bytes = bytes.saturating_add(image.len().saturating_sub(taken));
        }
    }
    Ok(bytes)
}
