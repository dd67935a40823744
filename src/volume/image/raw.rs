//! Volumes without a file system (`fs=none`): a block device of exactly their size.
//!
//! The image is attached to one loop device for all holders. While it is being attached the kernel
//! detaches it with its last user, so a killed process leaves nothing. Once its holder is recorded
//! it stays attached without a user: a container opens the node of the device whenever it likes.
//!
//! A device is that of an image if the kernel says so of its backing file (device and inode
//! number). Its number means nothing: after a detach it may be the device of another file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::device::{IMAGE, Image};
use super::options::{Options, device_bytes};
use super::refusal::{busy, unsupported};
use super::room;
use crate::error::FromHost;
use crate::sys;
use crate::volume::driver::{Attached, Limits, Place, Spec, Usage};
use crate::volume::error::{Result, VolumeError};
use std::os::fd::AsFd;

/// The sectors of the device: a user of a disk expects them, and one with sectors of this size can
/// be copied to any other disk.
const SECTOR_BYTES: u32 = 512;

/// How long a detached device may stay while a process that looks for another one has it open.
const LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// Creates the image.
pub(super) fn create(place: &Place, spec: &Spec, options: &Options) -> Result<()> {
    let bytes = device_bytes(spec.limits)?;
    if !options.overcommit {
        room::check(place, spec, bytes, 0)?;
    }
    let image = Image::create(place, IMAGE)?;
    image.set_len(bytes)?;
    sys::file::fsync(image.directory.as_fd()).map_err(VolumeError::host(place.directory()))
}

/// Attaches the image, or finds its device, which gets the size of the image.
pub(super) fn attach(place: &Place) -> Result<Attached> {
    let image = Image::open(place)?;
    let device = image.attach_with(SECTOR_BYTES)?;
    if !device.is_whole()? {
        return Err(busy(&image.path));
    }
    Ok(device.into_attached())
}

/// The node of the device of the image.
pub(super) fn attached(place: &Place) -> Result<Option<PathBuf>> {
    let device = Image::open(place)?.find_device()?;
    Ok(device.map(|device| device.path().to_owned()))
}

/// Detaches the image. A volume that is being made or removed may have none.
pub(super) fn detach(place: &Place) -> Result<()> {
    let image = match Image::open(place) {
        Err(VolumeError::Host(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        image => image?,
    };
    let Some(device) = image.find_device()? else { return Ok(()) };
    device.detach()?;
    let end = Instant::now() + LIMIT;
    while image.find_device()?.is_some() {
        if Instant::now() >= end {
            return Err(busy(&image.path));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Refuses an image that is attached.
pub(super) fn require_detached(place: &Place) -> Result<()> {
    let image = Image::open(place)?;
    match image.find_device()? {
        Some(_) => Err(busy(&image.path)),
        None => Ok(()),
    }
}

/// The space that the image takes.
pub(super) fn usage(place: &Place) -> Result<Usage> {
    let stat = Image::open(place)?.stat()?;
    let bytes = stat.blocks.saturating_mul(room::SECTOR_BYTES);
    Ok(Usage { used_bytes: bytes, host_bytes: bytes, used_inodes: None })
}

/// Grows the image and its device, which may be in use. A crash leaves the image of the new size
/// with a device of the old one; the next call, or [`attach`], makes the device as large.
pub(super) fn resize(place: &Place, spec: &Spec, limits: Limits, options: &Options) -> Result<()> {
    let bytes = device_bytes(limits)?;
    let image = Image::open(place)?;
    let stat = image.stat()?;
    if bytes < stat.size {
        let reason = "what is at the end of a block device would be lost: create a smaller volume \
                      and copy the content";
        return Err(unsupported("shrink", reason));
    }
    if bytes > stat.size {
        if !options.overcommit {
            room::check(place, spec, bytes, stat.blocks.saturating_mul(room::SECTOR_BYTES))?;
        }
        image.set_len(bytes)?;
    }
    match image.find_device()? {
        Some(device) => device.adopt_size(),
        None => Ok(()),
    }
}
