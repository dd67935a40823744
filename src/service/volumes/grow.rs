//! Growth of volumes, which never shrinks one.

use super::{Limits, Result, Volume, VolumeService, parts, place};
use crate::catalog::volumes::Locked;

impl VolumeService {
    /// Gives a volume at least a size, also while it is in use. One that has more by now keeps it.
    ///
    /// # Errors
    /// [`CatalogError::Missing`](crate::catalog::error::CatalogError::Missing), also if another
    /// volume has the name by now; those of the driver.
    pub fn enlarge(&self, volume: &Volume, bytes: u64) -> Result<Volume> {
        let mut locked = self.lock_same(volume)?;
        if locked.volume().size_bytes.is_some_and(|has| has < bytes) {
            self.resize_locked(&mut locked, Limits { size_bytes: Some(bytes), inodes: None })?;
        }
        Ok(locked.volume().clone())
    }

    /// Changes the limits of a volume whose state lock is held.
    pub(super) fn resize_locked(&self, locked: &mut Locked, limits: Limits) -> Result<()> {
        let (driver, mut spec) = parts(locked.volume())?;
        let limits = driver.rounded(&spec, limits.or(spec.limits));
        if limits.size_bytes > spec.limits.size_bytes {
            spec.promised_bytes = self.promised_but(&locked.volume().id)?;
        }
        driver.resize(&place(locked.volume()), &spec, limits)?;
        Ok(self.volumes.set_limits(locked, limits.size_bytes, limits.inodes)?)
    }
}
