//! The driver `image`: a file system of its own in a file, so that its size is a limit that nobody
//! can exceed on any host.
//!
//! The directory of the volume holds `image`, a sparse file with ext4 or XFS. To show it, the image
//! is attached to a loop device, and the file system on that is mounted at `_data`. The device is
//! detached by the kernel when nobody uses it any more, also after a crash.
//!
//! - `df` shows the size without what the file system itself takes (journal, tables of inodes);
//!   nothing is reserved for root.
//! - The volume begins as an empty directory: ext4's `lost+found` is removed.
//! - The space of removed files goes back to the host (`discard`; `o=nodiscard` prevents it).
//! - The limit of inodes is for the size at creation: ext4 makes more of them as it grows.
//! - Both file systems grow while they are in use, ext4 only in a process with CAP_SYS_RESOURCE;
//!   without it ext4 grows while it is not mounted. Only ext4 shrinks, while it is not mounted.
//! - What a crash interrupts is finished or undone by the next call: see the modules `resize` and
//!   `copy`.
//! - A volume without a file system (`fs=none`) is a block device: see the module `raw`.
//!
//! Options: `fs=ext4|xfs|none`, `o=WORD,...` with the options of mount(8) and of the file system,
//! and `overcommit=true` for images of more bytes than the host has free.

mod blocks;
mod copy;
mod device;
mod options;
mod program;
mod raw;
mod refusal;
mod resize;
pub(super) mod room;
mod together;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::error::FromHost;
use crate::sys;
use crate::volume::driver::{
    Attached, Driver, Freezing, Limits, OnCopied, Place, SPEED_ELSEWHERE, Spec, Usage,
};
use crate::volume::error::{Result, VolumeError};
pub use blocks::Blocks;
use device::{IMAGE, Image, Mounted};
use options::{Kind, MountOptions, Options, device_bytes, image_bytes};
use refusal::{DRIVER, busy, unsupported};

/// Volumes with a file system of their own in a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageDriver;

impl ImageDriver {
    /// Returns the bytes of the image: the size of the volume. A crash during [`Driver::resize`]
    /// leaves the size of before or the new one.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn size_bytes(&self, place: &Place) -> Result<u64> {
        Ok(Image::open(place)?.stat()?.size)
    }

    /// Opens the blocks of a snapshot of a block device, with those of an earlier one of the same
    /// volume to compare them with. Both stay readable if they are removed meanwhile.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn blocks(&self, place: &Place, base: Option<&Place>) -> Result<Blocks> {
        Blocks::open(place, base)
    }

    /// Mounts at `_data`, finishes a grow that a crash interrupted, and allows changes that a crash
    /// during a copy stopped.
    fn show(place: &Place, image: &Image, how: &MountOptions) -> Result<()> {
        let found = image.find_device()?;
        let mounted = device::mounted(place, &image.directory)?;
        let is_shown = mounted.is_on(found.as_ref());
        if mounted != Mounted::Nothing && !is_shown {
            return Err(busy(&place.data()));
        }
        let device = image.attach()?;
        let may_grow = resize::may_grow_mounted(image)?;
        if is_shown {
            let root = device::open_data(place, &image.directory)?;
            device::thaw(root.as_fd(), &image.path)?;
            if !may_grow || resize::is_filled(image, &device, &root)? {
                return Ok(());
            }
        }
        // Without the flags: a volume that is shown read-only grows too.
        let plain = MountOptions { parameters: how.parameters.clone(), ..MountOptions::default() };
        let mount = image.mount_detached(&device, &plain)?;
        let root = device::open_root(&mount, &image.path)?;
        device::thaw(root.as_fd(), &image.path)?;
        if may_grow {
            resize::fill_device(image, &device, &root)?;
        }
        if is_shown {
            return Ok(());
        }
        let shown = image.mount_detached(&device, how)?;
        device::put_at_data(place, &image.directory, &shown)
    }

    fn statfs(place: &Place, directory: &OwnedFd) -> Result<(u64, u64)> {
        let root = device::open_data(place, directory)?;
        let stat = sys::file::fstatfs(root.as_fd()).map_err(VolumeError::host(&place.data()))?;
        let used = stat.blocks.saturating_sub(stat.bfree).saturating_mul(stat.frsize.into());
        Ok((used, stat.files.saturating_sub(stat.ffree)))
    }
}

impl Driver for ImageDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        match Options::new(spec)?.kind {
            Some(kind) => image_bytes(kind, spec.limits).map(drop),
            None => device_bytes(spec.limits).map(drop),
        }
    }

    fn create(&self, place: &Place, spec: &Spec) -> Result<()> {
        let options = Options::new(spec)?;
        let Some(kind) = options.kind else { return raw::create(place, spec, &options) };
        let bytes = image_bytes(kind, spec.limits)?;
        if !options.overcommit {
            room::check(place, spec, bytes, 0)?;
        }
        let image = Image::create(place, IMAGE)?;
        image.set_len(bytes)?;
        program::make(kind, &image.path, spec.limits)?;
        if kind == Kind::Ext4 {
            resize::remove_lost_and_found(&image)?;
        }
        if !options.mount.parameters.is_empty() {
            // The kernel decides about parameters: one that it refuses makes no volume.
            drop(image.mount_detached(&image.attach()?, &options.mount)?);
        }
        image.sync()?;
        sys::file::fsync(image.directory.as_fd()).map_err(VolumeError::host(place.directory()))
    }

    fn mount(&self, place: &Place, spec: &Spec) -> Result<()> {
        let options = Options::new(spec)?;
        if options.kind.is_none() {
            return Err(unsupported("a mount", "a volume with fs=none is a block device"));
        }
        let image = Image::open(place)?;
        resize::remove_leftovers(&image)?;
        resize::finish_through_copy(place, &image)?;
        let image = Image::open(place)?;
        Self::show(place, &image, &options.mount)
    }

    fn is_private(&self, _: &Spec) -> bool {
        true
    }

    fn rounded(&self, spec: &Spec, limits: Limits) -> Limits {
        if !self.is_device(spec) {
            return limits;
        }
        let size_bytes = device_bytes(limits).ok().or(limits.size_bytes);
        Limits { size_bytes, ..limits }
    }

    fn is_device(&self, spec: &Spec) -> bool {
        Options::new(spec).is_ok_and(|options| options.kind.is_none())
    }

    fn attach(&self, place: &Place, spec: &Spec) -> Result<Attached> {
        if !self.is_device(spec) {
            return Err(unsupported("block devices", "this volume has files: use --opt fs=none"));
        }
        raw::attach(place)
    }

    fn detach(&self, place: &Place, spec: &Spec) -> Result<()> {
        if self.is_device(spec) { raw::detach(place) } else { Ok(()) }
    }

    fn attached(&self, place: &Place, spec: &Spec) -> Result<Option<PathBuf>> {
        if self.is_device(spec) { raw::attached(place) } else { Ok(None) }
    }

    fn remove(&self, place: &Place, spec: &Spec) -> Result<()> {
        self.detach(place, spec)
    }

    fn unmount(&self, place: &Place, spec: &Spec) -> Result<()> {
        if self.is_device(spec) {
            return raw::require_detached(place);
        }
        let directory = device::open_directory(place)?;
        if device::mounted(place, &directory)? == Mounted::Nothing {
            return Ok(());
        }
        let image = Image::open(place)?;
        let device = image.find_device()?;
        if !device::mounted(place, &directory)?.is_on(device.as_ref()) {
            return Err(busy(&place.data()));
        }
        device::thaw(device::open_data(place, &directory)?.as_fd(), &place.data())?;
        device::end_at_data(place, &directory)
    }

    fn usage(&self, place: &Place, spec: &Spec) -> Result<Usage> {
        if self.is_device(spec) {
            return raw::usage(place);
        }
        let image = Image::open(place)?;
        let device = image.find_device()?;
        let host_bytes = image.stat()?.blocks.saturating_mul(room::SECTOR_BYTES);
        if device::mounted(place, &image.directory)?.is_on(device.as_ref()) {
            let (used_bytes, inodes) = Self::statfs(place, &image.directory)?;
            return Ok(Usage { used_bytes, host_bytes, used_inodes: Some(inodes) });
        }
        Ok(Usage { used_bytes: host_bytes, host_bytes, used_inodes: None })
    }

    fn promised_bytes(&self, place: &Place, spec: &Spec) -> Result<u64> {
        if Options::new(spec)?.overcommit {
            return Ok(0);
        }
        let path = place.directory().join(IMAGE);
        let (len, taken) = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (0, 0),
            Err(error) => return Err(VolumeError::io(&path)(error)),
            Ok(image) => (image.len(), image.blocks().saturating_mul(room::SECTOR_BYTES)),
        };
        Ok(spec.limits.size_bytes.unwrap_or(0).max(len).saturating_sub(taken))
    }

    fn throttle(&self, _: &Place, _: &Spec) -> Result<()> {
        Err(unsupported("limits on speed", SPEED_ELSEWHERE))
    }

    fn copy(&self, place: &Place, spec: &Spec, to: &Place, on_copied: &OnCopied) -> Result<()> {
        let to = to.directory().join(IMAGE);
        match self.is_device(spec) {
            true => copy::copy_device(&Image::open(place)?, &to, on_copied),
            false => copy::copy_frozen(&Image::open(place)?, &to, on_copied),
        }
    }

    fn freezing(&self, place: &Place, spec: &Spec) -> Result<Option<Box<dyn Freezing>>> {
        let member = together::Member::of(place, self.is_device(spec))?;
        Ok(member.map(|member| Box::new(member) as Box<dyn Freezing>))
    }

    fn replace(
        &self,
        place: &Place,
        spec: &Spec,
        from: &Place,
        on_copied: &OnCopied,
    ) -> Result<()> {
        let copy = if self.is_device(spec) { copy::copy_device } else { copy::copy_frozen };
        copy::replace(place, &Image::open(from)?, |image, to| copy(image, to, on_copied))
    }

    fn resize(&self, place: &Place, spec: &Spec, limits: Limits) -> Result<()> {
        let options = Options::new(spec)?;
        let Some(kind) = options.kind else {
            return raw::resize(place, spec, limits, &options);
        };
        let bytes = image_bytes(kind, limits)?;
        if limits.inodes != spec.limits.inodes {
            let reason = "ext4 makes inodes with the file system: create another volume";
            return Err(unsupported("resize inodes", reason));
        }
        let image = Image::open(place)?;
        let stat = image.stat()?;
        if bytes < stat.size {
            return resize::shrink(place, &image, bytes);
        }
        if bytes > stat.size && !options.overcommit {
            room::check(place, spec, bytes, stat.blocks.saturating_mul(room::SECTOR_BYTES))?;
        }
        resize::grow(place, &image, bytes)
    }
}
