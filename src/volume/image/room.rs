//! The space of the host that a volume may still take.
//!
//! A volume takes space as it is written. What it was promised and has not taken is not free for
//! the next one, so that a volume never meets a full host before its own limit, unless
//! `overcommit=true` or something else fills the host.

use std::os::fd::AsFd;

use super::device::open_directory;
use crate::error::FromHost;
use crate::sys;
use crate::volume::driver::{Place, Spec};
use crate::volume::error::{Result, VolumeError};

/// Bytes of a block of `st_blocks`.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Refuses a volume of `bytes`, of which `taken` are on the host already, without enough space
/// beside what others were promised.
pub(in crate::volume) fn check(place: &Place, spec: &Spec, bytes: u64, taken: u64) -> Result<()> {
    let path = place.directory();
    let free = free(place)?.saturating_sub(spec.promised_bytes);
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
    Ok(stat.available_bytes())
}
