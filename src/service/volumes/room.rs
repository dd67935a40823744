//! The space that is left for new volumes.

use std::os::fd::AsFd;

use super::{Result, VolumeService};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::sys;
use crate::sys::file::OFlags;

impl VolumeService {
    /// The free bytes of the host.
    ///
    /// # Errors
    /// As statvfs(3).
    pub fn free(&self) -> Result<u64> {
        let failed = CatalogError::host(&self.root);
        let root = sys::file::open_path(&self.root, OFlags::PATH).map_err(&failed)?;
        Ok(sys::file::fstatfs(root.as_fd()).map_err(&failed)?.available_bytes())
    }

    /// The free bytes of the host that no volume was promised: the largest size of a new one.
    ///
    /// # Errors
    /// As statvfs(3); [`CatalogError::Database`].
    pub fn room(&self) -> Result<u64> {
        Ok(self.free()?.saturating_sub(self.promised_but("")?))
    }
}
