//! The data root, before and while objects come into it.

use std::os::fd::AsFd;
use std::path::Path;

use super::error::Result;
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::service::images::Images;
use crate::service::volumes::VolumeService;
use crate::sys::file::{self, OFlags};

/// The label of a volume with the place that it was copied or moved from.
pub const SOURCE_LABEL: &str = "lamina.dev/imported-from";
/// The label of a volume whose content moves from this place, until it is there.
pub(super) const ADOPTING_LABEL: &str = "lamina.dev/adopting";

/// The objects of the data root, as far as they are there.
#[derive(Default)]
pub(super) struct Target {
    pub images: Option<Images>,
    pub volumes: Option<VolumeService>,
}

impl Target {
    /// Opens what is there, and makes nothing.
    pub(super) fn there(root: &Path) -> Result<Self> {
        let images = root.join("images").is_dir().then(|| Images::open(root)).transpose()?;
        let is_there = root.join("catalog.db").is_file();
        let volumes = is_there.then(|| VolumeService::open(root)).transpose()?;
        Ok(Self { images, volumes })
    }
}

/// The free bytes of the file system of a path that may not exist yet.
pub(super) fn free_bytes(root: &Path) -> Result<u64> {
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let failed = CatalogError::host(there);
    let opened = file::open_path(there, OFlags::PATH).map_err(&failed)?;
    Ok(file::fstatfs(opened.as_fd()).map_err(&failed)?.available_bytes())
}
