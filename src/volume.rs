//! Volume drivers: what holds the content of a volume, and how large it may grow.
//!
//! A driver works in the directory of one volume. It shows the content at `_data` of it, by a
//! mount where it has a file system of its own. Callers serialise the calls for one volume (the
//! state lock of [`crate::catalog::volumes`]); calls for different volumes run side by side. A
//! driver keeps no state in memory: after a crash the next call reads the host.

pub mod error;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::{Result, VolumeError};

/// The directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// The volume in a directory.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory, in which the driver keeps its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory at which the content appears.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("_data")
    }
}

/// What a volume is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// The options of the driver, those of the limits left out.
    pub options: BTreeMap<String, String>,
    /// The limits.
    pub limits: Limits,
}

/// The limits of a volume; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The size in bytes.
    pub size_bytes: Option<u64>,
    /// The number of inodes.
    pub inodes: Option<u64>,
}

/// The space that a volume uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use, as `df` or `du` counts them.
    pub used_bytes: u64,
    /// Bytes that the volume takes on the host.
    pub host_bytes: u64,
    /// Inodes in use, where they are known.
    pub used_inodes: Option<u64>,
}

/// A volume driver.
pub trait Driver: Send + Sync {
    /// The name in options, records and messages.
    fn name(&self) -> &'static str;

    /// Refuses options and limits that the driver cannot serve, before anything is created.
    ///
    /// # Errors
    /// [`VolumeError::Option`], [`VolumeError::Unsupported`], [`VolumeError::TooSmall`].
    fn check(&self, spec: &Spec) -> Result<()>;

    /// Creates the content of a volume. The directory and an empty `_data` (mode 0755, root) exist
    /// and nobody else sees them. A crash or an error leaves files that the caller removes.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn create(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// Makes the content visible at `_data`, and does nothing if it is visible already.
    ///
    /// # Errors
    /// [`VolumeError`]. An error leaves nothing mounted.
    fn mount(&self, place: &Place, spec: &Spec) -> Result<()>;

    /// Ends what [`Driver::mount`] did, and does nothing if it is not mounted.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] if a process uses the mount.
    fn unmount(&self, place: &Place) -> Result<()>;

    /// The space in use, whether the volume is mounted or not.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn usage(&self, place: &Place, spec: &Spec) -> Result<Usage>;

    /// Changes the limits. `spec` has those of before. The volume may be mounted and in use.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`], [`VolumeError::TooSmall`]. An error leaves the old limits and
    /// the content.
    fn resize(&self, place: &Place, spec: &Spec, limits: Limits) -> Result<()>;
}
