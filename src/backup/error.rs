//! Errors of backups.

use std::path::PathBuf;

use crate::error::HostError;
use crate::tree::error::TreeError;

/// Result of an operation on a repository.
pub type Result<T> = std::result::Result<T, BackupError>;

/// Why a backup, a restore or another operation on a repository failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The tree cannot be read or made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// An invalid address.
    #[error("invalid repository {url:?}: {what}")]
    Url {
        /// The address, without a password.
        url: String,
        /// The defect, and what is valid.
        what: String,
    },
    /// A request failed, after all attempts.
    #[error("{object}: {what}")]
    Remote {
        /// The object.
        object: String,
        /// The message of the server or of the connection.
        what: String,
    },
    /// An object does not exist.
    #[error("{object} is missing in the repository")]
    Missing {
        /// The object.
        object: String,
    },
    /// There is no repository at the address.
    #[error("{url} has no backups: there is no repository")]
    NoRepository {
        /// The address.
        url: String,
    },
    /// There is no such backup.
    #[error("{url} has no backup {wanted}")]
    NoBackup {
        /// The address.
        url: String,
        /// What was looked for.
        wanted: String,
    },
    /// A later version of this program made the repository.
    #[error("{url} has version {found}; this program reads version 1")]
    Newer {
        /// The address.
        url: String,
        /// The version.
        found: u32,
    },
    /// A key file cannot be used.
    #[error("key file {}: {what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The defect.
        what: String,
    },
    /// The repository was made with another key, with one, or without one.
    #[error("{url} {what}")]
    WrongKey {
        /// The address.
        url: String,
        /// How the key differs.
        what: &'static str,
    },
    /// An object has other content than its name or its checksum say.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// The finding.
        what: String,
    },
    /// A file of a backup cannot be restored.
    #[error("{path}: {error}")]
    File {
        /// The file, printable.
        path: String,
        /// The reason.
        error: Box<Self>,
    },
    /// Another process works in the repository.
    #[error("{url} is in use by {by}")]
    Busy {
        /// The address.
        url: String,
        /// The other process.
        by: String,
    },
    /// The process lost its claim, so that another one may have removed chunks.
    #[error("the backup took no part in {url} for too long: what it sent may be gone")]
    LeaseLost {
        /// The address.
        url: String,
    },
    /// An object is larger than the format allows.
    #[error("{what}")]
    TooLarge {
        /// The object and the limit.
        what: String,
    },
}

impl BackupError {
    /// Adds the name of a file.
    pub(super) fn of(self, path: &[u8]) -> Self {
        Self::File { path: crate::tree::error::shown(path), error: Box::new(self) }
    }

    fn root(&self) -> &Self {
        match self {
            Self::File { error, .. } => error.root(),
            other => other,
        }
    }

    /// A hint about the next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self.root() {
            Self::Remote { .. } => {
                "check the address, the network and the credentials in the environment".to_owned()
            }
            Self::NoBackup { url, .. } => format!("list them: lamina volume backup ls {url}"),
            Self::NoRepository { url } => {
                format!(
                    "check the address; the first backup makes it: lamina volume backup NAME {url}"
                )
            }
            Self::WrongKey { what, .. } if what.contains("not encrypted") => {
                "leave out --key-file, or choose another repository".to_owned()
            }
            Self::WrongKey { .. } => "give the key file of the repository: --key-file".to_owned(),
            Self::Damaged { .. } | Self::Missing { .. } => {
                "find the damage: lamina volume backup check --read-data URL; a later backup of \
                 the volume sends missing chunks again"
                    .to_owned()
            }
            Self::Busy { .. } | Self::LeaseLost { .. } => "try again later".to_owned(),
            Self::Key { .. } => "make one: lamina volume backup key FILE".to_owned(),
            _ => return None,
        })
    }
}
