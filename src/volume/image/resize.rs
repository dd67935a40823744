//! Growing and shrinking an image.
//!
//! Growing: the file, then the loop device, then the file system, which may be in use. A crash
//! leaves a file system that is smaller than its file; the next mount grows it to the end.
//!
//! Shrinking moves blocks, and a program that is killed meanwhile leaves a broken file system. So
//! it is done to a copy, which then takes the place of the image by a rename: a crash leaves the
//! old image or the new one. The copy shares the blocks of the image where the host can do that.
//! ext4 grows in this way too in a process without CAP_SYS_RESOURCE, which the kernel requires to
//! grow it in use.

use std::os::fd::{AsFd, OwnedFd};

use super::copy::copy_data;
use super::device::{Device, IMAGE, Image, open_root, thaw};
use super::options::{BLOCK_BYTES, Kind, MountOptions};
use super::refusal::{busy, unsupported};
use super::{program, room};
use crate::error::{Errno, FromHost};
use crate::sys;
use crate::sys::process::Capability;
use crate::types::RenameFlags;
use crate::volume::driver::Place;
use crate::volume::error::{Result, VolumeError};

/// The copy that a program of the host works on.
const RESIZING: &str = "image.resizing";
/// The smallest last allocation group of XFS (`XFS_MIN_AG_BLOCKS`): a shorter rest is not used.
const XFS_GROUP_BLOCKS_MIN: u64 = 64;
/// Blocks of a group of ext4 with blocks of 4096 bytes, and those behind the last group that may be
/// too few for another one with its table of inodes.
const EXT4_GROUP_BLOCKS: u64 = 32_768;
const EXT4_REST_BLOCKS: u64 = 2048;

/// Removes what a crash during a resize left.
pub(super) fn remove_leftovers(image: &Image) -> Result<()> {
    match sys::dir::unlinkat(image.directory.as_fd(), RESIZING.as_bytes()) {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        done => done.map_err(VolumeError::host(&image.path)),
    }
}

/// The blocks of a file system on a device, and those that it can have there.
struct Blocks {
    now: u64,
    wanted: u64,
    /// The part of the space that inodes may take, where that is a limit of its own.
    inode_percent_max: u32,
}

impl Blocks {
    fn new(image: &Image, device: &Device, root: &OwnedFd) -> Result<Self> {
        let wanted = image.stat()?.size / BLOCK_BYTES;
        if image.kind()? == Kind::Ext4 {
            return Ok(Self { now: device.ext4_blocks()?, wanted, inode_percent_max: 0 });
        }
        let now = sys::disk::xfs_geometry(root.as_fd()).map_err(VolumeError::host(&image.path))?;
        let wanted = xfs_blocks(wanted, now.group_blocks.into());
        Ok(Self { now: now.blocks, wanted, inode_percent_max: now.inode_percent_max })
    }
}

/// The blocks that XFS uses of `blocks`.
const fn xfs_blocks(blocks: u64, group_blocks: u64) -> u64 {
    match blocks.checked_rem(group_blocks) {
        Some(rest) if rest < XFS_GROUP_BLOCKS_MIN => blocks - rest,
        _ => blocks,
    }
}

/// Whether a mounted file system reaches to the end of its image.
pub(super) fn is_filled(image: &Image, device: &Device, root: &OwnedFd) -> Result<bool> {
    let blocks = Blocks::new(image, device, root)?;
    Ok(blocks.now >= blocks.wanted)
}

/// Grows a mounted file system to the end of its image, if it is smaller.
pub(super) fn fill_device(image: &Image, device: &Device, root: &OwnedFd) -> Result<()> {
    let blocks = Blocks::new(image, device, root)?;
    if blocks.now >= blocks.wanted {
        return Ok(());
    }
    let grown = match image.kind()? {
        Kind::Ext4 => sys::disk::grow_ext4(root.as_fd(), blocks.wanted),
        Kind::Xfs => sys::disk::grow_xfs(root.as_fd(), blocks.wanted, blocks.inode_percent_max),
    };
    grown.map_err(VolumeError::host(&image.path))
}

/// Whether this process may grow a mounted file system (`ext4_resize_begin()` in the kernel's
/// fs/ext4/resize.c).
pub(super) fn may_grow_mounted(image: &Image) -> Result<bool> {
    let has = |what| sys::process::has_capability(sys::process::thread_id(), what);
    Ok(image.kind()? == Kind::Xfs || has(Capability::SysResource))
}

/// Finishes a grow of an image that is not attached, where it cannot be done while it is mounted.
/// The image may then be another file.
pub(super) fn finish_through_copy(place: &Place, image: &Image) -> Result<()> {
    if may_grow_mounted(image)? || image.find_device()?.is_some() {
        return Ok(());
    }
    let (now, bytes) = (image.ext4_blocks()?, image.stat()?.size);
    let is_whole_groups = now.is_multiple_of(EXT4_GROUP_BLOCKS);
    let rest = (bytes / BLOCK_BYTES).saturating_sub(now);
    if rest == 0 || is_whole_groups && rest < EXT4_REST_BLOCKS {
        return Ok(());
    }
    resize_copy(place, image, bytes)
}

/// Grows an image and its file system, mounted or not.
pub(super) fn grow(place: &Place, image: &Image, bytes: u64) -> Result<()> {
    if !may_grow_mounted(image)? {
        if image.find_device()?.is_some() {
            let reason = "the kernel requires CAP_SYS_RESOURCE: unmount the volume first";
            return Err(unsupported("resize of a mounted ext4", reason));
        }
        return resize_copy(place, image, bytes);
    }
    let before = image.stat()?.size;
    let device = image.attach()?;
    let mount = image.mount_detached(&device, &MountOptions::default())?;
    let root = open_root(&mount, &image.path)?;
    thaw(root.as_fd(), &image.path)?;
    let grown = image
        .set_len(bytes)
        .and_then(|()| device.adopt_size())
        .and_then(|()| fill_device(image, &device, &root));
    if grown.is_err() {
        let now = Blocks::new(image, &device, &root)?.now;
        // Otherwise a part of the space is in use, and the next mount grows to the end.
        if now.saturating_mul(BLOCK_BYTES) <= before {
            image.set_len(before)?;
            device.adopt_size()?;
        }
    }
    grown
}

/// Shrinks an image that is not attached, through a copy.
pub(super) fn shrink(place: &Place, image: &Image, bytes: u64) -> Result<()> {
    if image.kind()? == Kind::Xfs {
        let reason = "xfs cannot shrink: create a smaller volume and copy the content";
        return Err(unsupported("shrink", reason));
    }
    if image.find_device()?.is_some() {
        return Err(busy(&place.data()));
    }
    resize_copy(place, image, bytes)
}

/// Puts a resized copy in the place of an ext4 image that is not attached.
fn resize_copy(place: &Place, image: &Image, bytes: u64) -> Result<()> {
    remove_leftovers(image)?;
    let copy = Image::create(place, RESIZING)?;
    let resized = fill_copy(place, image, &copy, bytes);
    if resized.is_err() {
        remove_leftovers(image)?;
    }
    resized
}

fn fill_copy(place: &Place, image: &Image, copy: &Image, bytes: u64) -> Result<()> {
    if sys::ioctl::ficlone(copy.fd.as_fd(), image.fd.as_fd()).is_err() {
        let (needed, free) = (image.stat()?.blocks * room::SECTOR_BYTES, room::free(place)?);
        if needed > free {
            let path = place.directory().to_owned();
            return Err(VolumeError::NoSpace { path, needed_bytes: needed, free_bytes: free });
        }
        copy_data((image.fd.as_fd(), copy.fd.as_fd()), &|_, _| {})
            .map_err(VolumeError::host(&copy.path))?;
    }
    if bytes > image.stat()?.size {
        copy.set_len(bytes)?;
    }
    program::check_ext4(&copy.path)?;
    program::resize_ext4(&copy.path, bytes)?;
    copy.set_len(bytes)?;
    // The check made it again.
    remove_lost_and_found(copy)?;
    copy.sync()?;
    let directory = image.directory.as_fd();
    let failed = VolumeError::host(&image.path);
    let (from, to) = ((directory, RESIZING.as_bytes()), (directory, IMAGE.as_bytes()));
    sys::dir::renameat2(from, to, RenameFlags::default()).map_err(&failed)?;
    sys::file::fsync(directory).map_err(&failed)
}

/// Removes an empty `lost+found` of ext4: a new volume is an empty directory, and is then filled
/// from the image of a container.
pub(super) fn remove_lost_and_found(image: &Image) -> Result<()> {
    let device = image.attach()?;
    let mount = image.mount_detached(&device, &MountOptions::default())?;
    match sys::dir::rmdirat(mount.as_fd(), b"lost+found") {
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTEMPTY) => Ok(()),
        done => done.map_err(VolumeError::host(&image.path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_rest_behind_the_groups_is_left_out() {
        assert_eq!(xfs_blocks(1000, 100), 1000);
        assert_eq!(xfs_blocks(1063, 100), 1000);
        assert_eq!(xfs_blocks(1064, 100), 1064);
        assert_eq!(xfs_blocks(1063, 0), 1063);
    }
}
