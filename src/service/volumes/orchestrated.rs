//! Volumes and snapshots of an orchestrator: it holds them, and it alone removes them.

use std::time::{Duration, Instant};

use super::{Refusal, Result, Volume, VolumeService, unmount};
use crate::catalog::error::{CatalogError, User};
use crate::catalog::volumes::Locked;
use crate::volume::VolumeError;

/// How long a volume may be in use by a program that a process is starting: until that runs, it has
/// all open files of the process that starts it, and the locks of these.
const STARTING: Duration = Duration::from_secs(1);
/// Between two looks at such a volume.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for a moment until nobody uses a volume, and ends its mount.
fn await_idle(locked: &Locked) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    while !locked.is_idle()? && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
    locked.require_idle()?;
    loop {
        match unmount(locked) {
            Err(Refusal::Volume(VolumeError::Busy { .. })) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

impl VolumeService {
    /// Ends the mount of a volume that nobody but this process uses.
    pub(super) fn let_go(
        &self,
        locked: Locked,
        idle: impl FnOnce(&Locked) -> Result<()>,
    ) -> Result<Locked> {
        self.require_no_container(&locked.volume().name)?;
        let was_held = self.held.lock().remove(&locked.volume().id).is_some();
        let unused = idle(&locked);
        if let Err(error) = unused.and_then(|()| unmount(&locked)) {
            self.take_back(&locked, was_held)?;
            return Err(error);
        }
        Ok(locked)
    }

    /// Whether an engine or an orchestrator holds a volume.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn is_held(&self, volume: &Volume) -> Result<bool> {
        Ok(self.volumes.is_held(volume)?)
    }

    /// Takes the state lock of a volume, unless another volume has its name by now.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub(super) fn lock_same(&self, volume: &Volume) -> Result<Locked> {
        let locked = self.volumes.lock(&volume.name)?;
        if locked.volume().id == volume.id {
            return Ok(locked);
        }
        Err(CatalogError::Missing { kind: "volume", name: volume.name.to_string() }.into())
    }

    /// Removes a volume with its content for good, unless somebody holds or uses it.
    ///
    /// # Errors
    /// [`CatalogError::InUse`]; [`CatalogError::Missing`], also if another volume has the name by
    /// now.
    pub fn erase_unheld(&self, volume: &Volume) -> Result<()> {
        let locked = self.lock_same(volume)?;
        // A holder may have appeared since the caller looked; none does while it is locked.
        if self.volumes.is_held(locked.volume())? {
            let (kind, name) = ("volume", volume.name.to_string());
            return Err(CatalogError::InUse { kind, name, by: User::Engine }.into());
        }
        self.remove_for_good(self.let_go(locked, await_idle)?)
    }
}
