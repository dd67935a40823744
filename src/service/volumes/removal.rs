//! Removal of volumes: what stops it, and where the content goes.

use std::time::{Duration, Instant};

use super::{
    DEFAULT_DRIVER, Refusal, Removal, Result, Volume, VolumeService, in_use, require_unclaimed,
    unmount,
};
use crate::catalog::error::User;
use crate::catalog::volumes::Locked;
use crate::types::VolumeName;
use crate::volume::VolumeError;

/// How long the mount of a volume may be in use by a program that a process is starting: until that
/// runs, it has all open files of the process that starts it.
const STARTING: Duration = Duration::from_secs(1);
/// Between two attempts to end it.
const PAUSE: Duration = Duration::from_millis(10);

impl VolumeService {
    /// Removes a volume.
    ///
    /// # Errors
    /// `InUse` of [`Refusal::Catalog`] while a mount or a container, mounted or not, uses it, or
    /// for an owner from whom `how` does not take it; `Missing`.
    pub fn remove(&self, name: &VolumeName, how: Removal) -> Result<()> {
        let locked = self.volumes.lock(name)?;
        self.require_takable(&locked, how)?;
        let locked = self.let_go(locked)?;
        match how.takes_content {
            true => self.remove_for_good(locked),
            false => Ok(self.volumes.trash(locked)?),
        }
    }

    /// Refuses what [`VolumeService::remove`] would refuse.
    ///
    /// # Errors
    /// As [`VolumeService::remove`].
    pub fn require_removable(&self, name: &VolumeName, how: Removal) -> Result<()> {
        let locked = self.volumes.lock(name)?;
        self.require_takable(&locked, how)?;
        self.require_no_container(name)?;
        Ok(locked.require_idle()?)
    }

    /// Removes a volume with its content for good, also from holders and claims.
    ///
    /// # Errors
    /// As [`VolumeService::remove`].
    pub fn erase(&self, name: &VolumeName) -> Result<()> {
        self.remove(name, Removal { takes_content: true, ..Removal::FORCED })
    }

    /// Refuses a volume of an owner from whom `how` does not take it.
    fn require_takable(&self, locked: &Locked, how: Removal) -> Result<()> {
        if !how.takes_held {
            self.require_unheld(locked)?;
        }
        if how.takes_claimed { Ok(()) } else { require_unclaimed(locked) }
    }

    /// Refuses a volume that has holders. None begins to while it is locked.
    pub(super) fn require_unheld(&self, locked: &Locked) -> Result<()> {
        match self.volumes.is_held(locked.volume())? {
            true => Err(in_use(&locked.volume().name, User::Engine)),
            false => Ok(()),
        }
    }

    /// Removes a volume or a snapshot with its content, and what only it shared.
    pub(super) fn remove_for_good(&self, locked: Locked) -> Result<()> {
        self.volumes.remove(locked)?;
        self.settle_shared();
        Ok(())
    }

    /// Removes a volume with its content for good, unless somebody holds or uses it.
    ///
    /// # Errors
    /// `InUse` and `Missing` of [`Refusal::Catalog`], the latter also if another volume has the
    /// name by now.
    pub fn erase_unheld(&self, volume: &Volume) -> Result<()> {
        let locked = self.lock_same(volume)?;
        self.require_unheld(&locked)?;
        self.remove_for_good(self.let_go(locked)?)
    }

    /// Removes a volume that was made for a mount or an adoption that failed, unless another volume
    /// has its name by now. Content goes to the trash: another process may have written it.
    ///
    /// # Errors
    /// `InUse` of [`Refusal::Catalog`] if it has another user by now.
    pub(in crate::service) fn erase_made(&self, made: &Volume) -> Result<()> {
        let locked = match self.lock_same(made) {
            Err(error) if error.is_missing() => return Ok(()),
            locked => self.let_go(locked?)?,
        };
        let data = &locked.volume().mountpoint;
        let is_plain = locked.volume().driver == DEFAULT_DRIVER;
        let is_empty = || std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none());
        match is_plain && is_empty() {
            true => self.remove_for_good(locked),
            false => Ok(self.volumes.trash(locked)?),
        }
    }

    /// Ends the mount of a volume that only this process uses.
    fn let_go(&self, locked: Locked) -> Result<Locked> {
        self.require_no_container(&locked.volume().name)?;
        let was_held = self.held.lock().remove(&locked.volume().id).is_some();
        if let Err(error) = end_mount(&locked) {
            self.take_back(&locked, was_held)?;
            return Err(error);
        }
        Ok(locked)
    }
}

/// Ends the mount of an unused volume.
fn end_mount(locked: &Locked) -> Result<()> {
    locked.require_idle()?;
    let deadline = Instant::now() + STARTING;
    loop {
        match unmount(locked) {
            Err(Refusal::Volume(VolumeError::Busy { .. })) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}
