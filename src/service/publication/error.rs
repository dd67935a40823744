//! Errors of publications.

use std::path::PathBuf;

use crate::error::HostError;

/// Result of an operation on publications.
pub type Result<T> = std::result::Result<T, PublicationError>;

/// Why a publication was not made or not ended. Nothing that is not ours was changed.
#[derive(Debug, thiserror::Error)]
pub enum PublicationError {
    /// A part of the request is not possible.
    #[error("{what}")]
    Invalid {
        /// The part, and what is valid.
        what: String,
    },
    /// A flag of the request is unknown, or a bind mount cannot have it.
    #[error(
        "mount flag {flag:?} is not possible: use ro, nosuid, nodev, noexec, nosymfollow, noatime, \
         relatime, strictatime or nodiratime"
    )]
    Flag {
        /// The flag, without a value.
        flag: String,
    },
    /// The directory above the target does not exist.
    #[error("the directory above {} does not exist: its caller makes it", target.display())]
    NoParent {
        /// The target.
        target: PathBuf,
    },
    /// The source is not there.
    #[error("there is no content at {}", source_path.display())]
    NoSource {
        /// The source.
        source_path: PathBuf,
    },
    /// The target shows something else, or shows it in another way.
    #[error("{} is published with other arguments: unpublish it first", target.display())]
    AlreadyPublished {
        /// The target.
        target: PathBuf,
    },
    /// The target is published for another object.
    #[error("{} is published for {owner}", target.display())]
    Other {
        /// The target.
        target: PathBuf,
        /// The object.
        owner: String,
    },
    /// Another program mounted something on the target.
    #[error("{} has a mount of another program ({what}): unmount it first", target.display())]
    Foreign {
        /// The target.
        target: PathBuf,
        /// The type and the source of the mount.
        what: String,
    },
    /// Something at the target is not what a publication makes.
    #[error("{} is {what}: remove it first", target.display())]
    Occupied {
        /// The target.
        target: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A mount is in use.
    #[error("{} is in use: {}", target.display(), by.join("; "))]
    Busy {
        /// The mount point.
        target: PathBuf,
        /// The users.
        by: Vec<String>,
    },
    /// The process that shows a group or a context did not start.
    #[error("lamina volume view: {reason}")]
    View {
        /// The reason.
        reason: String,
    },
    /// A record cannot be read.
    #[error("{}: {reason}: remove it if nothing is mounted", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// What ends with the publication did not end.
    #[error("{0}")]
    Release(String),
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
}
