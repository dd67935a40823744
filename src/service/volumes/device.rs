//! Volumes that are block devices, as front ends use them.
//!
//! Holders are recorded as those of other volumes are. A device stays attached as long as there is
//! one, also after the process that attached it was killed; [`VolumeService::resume`] attaches it
//! again after a restart of the host, where it may get another number.

use std::ops::Range;
use std::path::PathBuf;

use super::{Refusal, Result, Volume, VolumeService, is_device, parts, place, settle};
use crate::catalog::volumes::Locked;
use crate::types::VolumeName;
use crate::volume::VolumeError;
use crate::volume::image::{Blocks, ImageDriver};

fn require_device(volume: &Volume) -> Result<()> {
    if is_device(volume) {
        return Ok(());
    }
    Err(VolumeError::NotDevice { name: volume.name.to_string() }.into())
}

impl VolumeService {
    /// Attaches a volume without a file system for a holder, and returns the node of its block
    /// device, which all holders share. A holder is a member of a set, which is recorded: it counts
    /// once, and after a restart too. [`VolumeService::unpublish`] ends the use.
    ///
    /// The node has another number after a restart of the host, and may have after an administrator
    /// detached it: a caller that shows the node elsewhere calls this again and compares.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing);
    /// [`VolumeError::NotDevice`]; those of the driver. A crash leaves nothing attached, or a
    /// recorded holder.
    pub fn publish_device(&self, name: &VolumeName, holder: &str) -> Result<PathBuf> {
        let locked = self.volumes.lock(name)?;
        require_device(locked.volume())?;
        self.attach_for(&locked, Some(holder))
    }

    /// The node of the block device that a volume is attached to now, if it is.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing);
    /// [`VolumeError::NotDevice`].
    pub fn device(&self, name: &VolumeName) -> Result<Option<PathBuf>> {
        let volume = self.volumes.find(name)?;
        require_device(&volume)?;
        let (driver, spec) = parts(&volume)?;
        Ok(driver.attached(&place(&volume), &spec)?)
    }

    /// Takes a volume into use again that could not be taken out of use.
    pub(super) fn take_back(&self, locked: &Locked, was_held: bool) -> Result<()> {
        if !is_device(locked.volume()) {
            return if was_held { self.hold(locked) } else { Ok(()) };
        }
        if self.volumes.is_held(locked.volume())? {
            self.attach_for(locked, None)?;
        }
        Ok(())
    }

    /// Attaches a volume, and keeps it attached once its holder is recorded.
    pub(super) fn attach_for(&self, locked: &Locked, holder: Option<&str>) -> Result<PathBuf> {
        let volume = locked.volume();
        let (driver, spec) = parts(volume)?;
        let attached = driver.attach(&place(volume), &spec)?;
        if let Some(holder) = holder {
            self.volumes.add_holder(locked, holder)?;
        }
        attached.keep()?;
        self.hold(locked)?;
        Ok(attached.path().to_owned())
    }

    /// Detaches the device of a volume without holders that a killed process left.
    pub(super) fn end_unheld_device(&self, locked: &Locked) -> Result<()> {
        if is_device(locked.volume()) && !self.volumes.is_held(locked.volume())? {
            return settle(locked);
        }
        Ok(())
    }

    /// Reports the blocks of a snapshot of a block device (`VOLUME@SNAPSHOT`, or its id) from the
    /// byte `from` on, and returns the size of the snapshot. Without `base` those with data; with
    /// it, an earlier snapshot of the same volume, those that differ. None that differs is left
    /// out. `on` gets ranges of whole blocks of 4096 bytes in ascending order, which do not touch;
    /// it returns whether to go on. Both snapshots may be removed meanwhile.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing);
    /// [`VolumeError::NotDevice`], [`VolumeError::Unrelated`]; those of the host.
    pub fn blocks(
        &self,
        snapshot: &str,
        base: Option<&str>,
        from: u64,
        on: &mut dyn FnMut(Range<u64>) -> bool,
    ) -> Result<u64> {
        let blocks = self.open_blocks(snapshot, base)?;
        blocks.each(from, on)?;
        Ok(blocks.size())
    }

    fn open_blocks(&self, snapshot: &str, base: Option<&str>) -> Result<Blocks> {
        let of = self.inspect_snapshot(snapshot)?;
        require_device(&of)?;
        let earlier = base.map(|base| self.inspect_snapshot(base)).transpose()?;
        if let (Some(earlier), Some(base)) = (&earlier, base) {
            require_device(earlier)?;
            if earlier.origin != of.origin {
                let (one, other) = (base.to_owned(), snapshot.to_owned());
                return Err(VolumeError::Unrelated { one, other }.into());
            }
        }
        let opened = ImageDriver.blocks(&place(&of), earlier.as_ref().map(place).as_ref());
        opened.map_err(|error| {
            // One of them was removed meanwhile.
            let gone = [Some(snapshot), base].into_iter().flatten();
            let mut gone = gone.filter_map(|text| self.inspect_snapshot(text).err());
            gone.find(Refusal::is_missing).unwrap_or_else(|| error.into())
        })
    }
}
