//! The space that is left for new volumes.

use std::os::fd::AsFd;

use super::{Result, VolumeService};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::sys;
use crate::sys::file::OFlags;

impl VolumeService {
    /// The free bytes of the host that no volume was promised: the largest size of a new one.
    ///
    /// # Errors
    /// As statvfs(3); [`CatalogError::Database`].
    pub fn room(&self) -> Result<u64> {
        let failed = CatalogError::host(&self.root);
        let root = sys::file::open_path(&self.root, OFlags::PATH).map_err(&failed)?;
        let stat = sys::file::fstatfs(root.as_fd()).map_err(&failed)?;
        let free = stat.bavail.saturating_mul(u64::from(stat.frsize));
        Ok(free.saturating_sub(self.promised_but("")?))
    }

    /// Whether an engine or an orchestrator holds a volume.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn is_held(&self, volume: &super::Volume) -> Result<bool> {
        Ok(self.volumes.is_held(volume)?)
    }

    /// Removes snapshots for good, by their ids: a crash leaves all of them, or none. One that is
    /// gone is not an error.
    ///
    /// # Errors
    /// [`CatalogError::InUse`].
    pub fn remove_snapshots_together(&self, ids: &[&str]) -> Result<()> {
        self.remove_snapshots(ids.to_vec())
    }
}
