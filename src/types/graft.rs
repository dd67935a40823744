//! Grafts: objects of the host that appear at a path of a mount.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Name, Subpath, VolumeName};

/// An object of the host at a path of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graft {
    /// The object.
    pub source: GraftSource,
    /// The place, as components below the root of the mount; at least one.
    pub path: Vec<Name>,
    /// The flags of the graft; those of the mount count too.
    pub flags: BindFlags,
    /// Whether mounts beneath the source are shown too.
    pub recursive: bool,
}

/// The object that a graft shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraftSource {
    /// A directory or file of the host.
    Bind(PathBuf),
    /// A named volume. A missing one is created, unless a part of it is named.
    Volume {
        /// The name of the volume.
        name: VolumeName,
        /// Whether an empty volume stays empty, in place of being filled from the image.
        nocopy: bool,
        /// The part of the volume that is shown, in place of all of it.
        subpath: Option<Subpath>,
    },
    /// A file system in memory that ends with the mount.
    Tmpfs {
        /// The size limit in the form of tmpfs, `64m` or `10%`.
        size: Option<String>,
        /// The permission bits of its root.
        mode: Option<u32>,
    },
}

/// Flags of a bind mount that its user chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindFlags {
    /// `MOUNT_ATTR_RDONLY`.
    pub read_only: bool,
    /// `MOUNT_ATTR_NOSUID`.
    pub nosuid: bool,
    /// `MOUNT_ATTR_NODEV`.
    pub nodev: bool,
    /// `MOUNT_ATTR_NOEXEC`.
    pub noexec: bool,
}

impl Graft {
    /// The place as a path from the root of the mount.
    #[must_use]
    pub fn shown_path(&self) -> String {
        let parts = self.path.iter().map(|part| String::from_utf8_lossy(part));
        parts.fold(String::new(), |path, part| path + "/" + &part)
    }
}

impl GraftSource {
    /// The name of the source in messages.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Bind(path) => path.display().to_string(),
            Self::Volume { name, subpath: None, .. } => format!("volume {name}"),
            Self::Volume { name, subpath: Some(subpath), .. } => {
                format!("volume {name} (subpath {subpath})")
            }
            Self::Tmpfs { .. } => "tmpfs".to_owned(),
        }
    }

    /// The name of the volume, if the source is one.
    #[must_use]
    pub const fn volume(&self) -> Option<&VolumeName> {
        match self {
            Self::Volume { name, .. } => Some(name),
            Self::Bind(_) | Self::Tmpfs { .. } => None,
        }
    }
}

impl BindFlags {
    /// All flags that these leave out.
    #[must_use]
    pub const fn others(self) -> Self {
        Self {
            read_only: !self.read_only,
            nosuid: !self.nosuid,
            nodev: !self.nodev,
            noexec: !self.noexec,
        }
    }

    /// The flags that either side sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            read_only: self.read_only || other.read_only,
            nosuid: self.nosuid || other.nosuid,
            nodev: self.nodev || other.nodev,
            noexec: self.noexec || other.noexec,
        }
    }
}
