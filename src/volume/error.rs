//! Errors of volume drivers.

use std::path::PathBuf;

use crate::catalog::error::CatalogError;
use crate::error::HostError;
use crate::types::size::shown;

/// Result of a volume driver.
pub type Result<T> = std::result::Result<T, VolumeError>;

/// The driver of an option, if the option is not one of all drivers.
fn of_driver(driver: &str) -> String {
    if driver == "lamina" { String::new() } else { format!(" of driver {driver}") }
}

/// Why a volume driver failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The catalogue failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No driver has this name.
    #[error("volume driver {name:?} does not exist: use one of {known}")]
    NoDriver {
        /// The name in the request.
        name: String,
        /// The names of the drivers.
        known: String,
    },
    /// No volume plugin of Docker has this name.
    #[error("volume plugin {name:?} does not exist: it has no socket in {} and no file in {specs}",
        sockets.display())]
    NoPlugin {
        /// The name in the request.
        name: String,
        /// The directory of sockets.
        sockets: PathBuf,
        /// The directories of files that name sockets.
        specs: String,
    },
    /// The file of a volume plugin names no socket that can be used.
    #[error("{}: {what}", path.display())]
    PluginAddress {
        /// The file.
        path: PathBuf,
        /// The address, and what is valid.
        what: String,
    },
    /// A call of a volume plugin failed.
    #[error("volume plugin {plugin:?}: {call}: {reason}")]
    Plugin {
        /// The name of the plugin.
        plugin: String,
        /// The call.
        call: &'static str,
        /// The text of the plugin, or why there is none.
        reason: String,
    },
    /// An option is unknown to a driver, or its value is invalid.
    #[error("option {key}={value}{}: {reason}", of_driver(driver))]
    Option {
        /// The name of the driver.
        driver: &'static str,
        /// The option.
        key: String,
        /// Its value.
        value: String,
        /// The reason, and what is valid.
        reason: String,
    },
    /// A driver cannot do what a verb requests.
    #[error("driver {driver} does not support {verb}: {reason}")]
    Unsupported {
        /// The name of the driver.
        driver: &'static str,
        /// The verb.
        verb: &'static str,
        /// The reason, and what to use in its place.
        reason: String,
    },
    /// The mount of a volume is in use, so that it cannot be unmounted.
    #[error("{} is busy", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// The image of a volume is attached to a block device, which others may write to.
    #[error("{} is attached as a block device: {reason}", path.display())]
    Attached {
        /// The image.
        path: PathBuf,
        /// The reason, and the next thing to try.
        reason: String,
    },
    /// Files of a volume without a file system were requested.
    #[error("volume {name:?} is a block device, not a directory")]
    IsDevice {
        /// The name of the volume, or of the snapshot.
        name: String,
    },
    /// The block device of a volume with files was requested.
    #[error("volume {name:?} is not a block device: create one with --driver image --opt fs=none")]
    NotDevice {
        /// The name of the volume, or of the snapshot.
        name: String,
    },
    /// Two snapshots of different volumes were compared.
    #[error("snapshots {one:?} and {other:?} are not of one volume")]
    Unrelated {
        /// The one snapshot, as it was named.
        one: String,
        /// The other one.
        other: String,
    },
    /// A volume cannot be in a snapshot with others.
    #[error("volume {name:?} of driver {driver} cannot be in a snapshot with others: {reason}")]
    NotTogether {
        /// The name of the volume.
        name: String,
        /// The name of the driver.
        driver: String,
        /// The reason.
        reason: String,
    },
    /// A size is too small for the content, or for the file system.
    #[error("{what}")]
    TooSmall {
        /// The size, and the smallest one that is possible.
        what: String,
    },
    /// The host has less free space than the request needs.
    #[error("{}: {} are needed, {} are free", path.display(), shown(*needed_bytes),
        shown(*free_bytes))]
    NoSpace {
        /// The directory on the full file system.
        path: PathBuf,
        /// The bytes that are needed.
        needed_bytes: u64,
        /// The bytes that are free.
        free_bytes: u64,
    },
    /// A program of the host is missing or failed.
    #[error("{program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// The reason: its last lines of output, or why it did not start.
        reason: String,
    },
}
