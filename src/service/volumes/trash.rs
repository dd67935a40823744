//! The trash: removed volumes stay for a while.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Trashed, VolumeService};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::service::failure::Refusal;
use crate::sys;

/// When volumes in the trash are removed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrashPolicy {
    /// A volume is removed after it was in the trash for this long.
    pub age: Duration,
    /// The oldest volumes are removed while less than this share of the file system is free, in
    /// percent.
    pub free_percent: u64,
    /// No volume is removed for lack of space before it was in the trash for this long.
    pub least_age: Duration,
}

impl Default for TrashPolicy {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { age: hour * 24 * 7, free_percent: 10, least_age: hour }
    }
}

impl VolumeService {
    /// Removes the volumes in the trash whose time is over, and returns them.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn empty_trash(&self, policy: &TrashPolicy) -> Result<Vec<Trashed>, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut gone = Vec::new();
        for trashed in self.trashed()? {
            let since = Duration::from_secs(trashed.removed.try_into().unwrap_or(0));
            let age = now.saturating_sub(since);
            if age < policy.age && (age < policy.least_age || self.is_roomy(policy)?) {
                break;
            }
            match self.purge(&trashed) {
                Ok(true) => gone.push(trashed),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, name = %trashed.volume.name, "stays in the trash");
                }
            }
        }
        Ok(gone)
    }

    fn is_roomy(&self, policy: &TrashPolicy) -> Result<bool, Refusal> {
        let root = sys::file::find_directory(&self.root).map_err(CatalogError::host(&self.root))?;
        let found = sys::file::fstatfs(root.as_fd()).map_err(CatalogError::host(&self.root))?;
        Ok(found.bavail.saturating_mul(100) >= found.blocks.saturating_mul(policy.free_percent))
    }
}
