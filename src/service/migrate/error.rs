//! Why nothing, or not all, can be taken over from an engine.

use std::io;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::request::EngineKind;
use crate::catalog::error::CatalogError;
use crate::service::failure::Refusal;
use crate::transfer::error::TransferError;
use crate::tree::error::TreeError;

pub(super) type Result<T> = std::result::Result<T, MigrateError>;

/// Why an engine's objects cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nobody answers at the socket of an engine.
    #[error("{engine} does not answer on {}: {error}", socket.display())]
    Away {
        /// The engine.
        engine: EngineKind,
        /// Its socket.
        socket: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The program of an engine is missing.
    #[error("{engine} is not installed: there is no program {program} on PATH")]
    NotInstalled {
        /// The engine.
        engine: EngineKind,
        /// Its program.
        program: String,
    },
    /// An engine refused a request.
    #[error("{engine} refused {what}: {reason}")]
    Refused {
        /// The engine.
        engine: EngineKind,
        /// The request.
        what: String,
        /// The text of the engine.
        reason: String,
    },
    /// The reply of an engine makes no sense.
    #[error("the reply of {engine} to {what} cannot be read: {reason}")]
    Nonsense {
        /// The engine.
        engine: EngineKind,
        /// The request.
        what: String,
        /// The reason.
        reason: String,
    },
    /// The storage of an engine cannot be read.
    #[error("the storage of {engine}, {}: {error}", path.display())]
    Storage {
        /// The engine.
        engine: EngineKind,
        /// The root of the storage.
        path: PathBuf,
        /// The reason.
        error: TransferError,
    },
    /// No image and no volume of the engine has this name.
    #[error("{engine} has no {what} {name:?}")]
    Unknown {
        /// The engine.
        engine: EngineKind,
        /// What was looked for.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An error of the data root.
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

impl From<CatalogError> for MigrateError {
    fn from(error: CatalogError) -> Self {
        Self::Refusal(error.into())
    }
}

impl MigrateError {
    /// A hint about the next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let storage = |engine: &EngineKind| {
            format!("or read its storage without it: --storage-root {}", engine.default_storage())
        };
        Some(match self {
            Self::Away { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "run as root, or as a user of the socket".to_owned()
            }
            Self::Away { engine: engine @ EngineKind::Docker, .. } => format!(
                "start it (systemctl start docker), name its socket (--socket PATH), {}",
                storage(engine)
            ),
            Self::Away { engine, .. } => {
                format!("leave --socket out, to call the program podman, {}", storage(engine))
            }
            Self::NotInstalled { engine, .. } => {
                format!("name its socket (--socket PATH), {}", storage(engine))
            }
            Self::Storage { error: TransferError::Host(error), .. }
                if error.source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "run as root".to_owned()
            }
            Self::Storage { .. } => {
                "check that --storage-root names the directory of the engine".to_owned()
            }
            Self::Unknown { engine, .. } => {
                format!("list them: {0} images; {0} volume ls", engine.program())
            }
            Self::Refusal(error) => return error.hint(),
            Self::Refused { .. } | Self::Nonsense { .. } => return None,
        })
    }
}

/// Why one object is not taken over, for the report.
#[derive(Debug)]
pub(super) struct Reason {
    pub text: String,
    pub hint: Option<String>,
}

impl Reason {
    pub(super) fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: Some(hint.into()) }
    }
}

impl From<Refusal> for Reason {
    fn from(error: Refusal) -> Self {
        Self { text: error.to_string(), hint: error.hint() }
    }
}

impl From<MigrateError> for Reason {
    fn from(error: MigrateError) -> Self {
        Self { text: error.to_string(), hint: error.hint() }
    }
}

impl From<TransferError> for Reason {
    fn from(error: TransferError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<TreeError> for Reason {
    fn from(error: TreeError) -> Self {
        TransferError::from(error).into()
    }
}

/// Reads a reply.
pub(super) fn parsed<T: DeserializeOwned>(engine: EngineKind, what: &str, raw: &[u8]) -> Result<T> {
    serde_json::from_slice(raw).map_err(|error| {
        let (what, reason) = (what.to_owned(), error.to_string());
        MigrateError::Nonsense { engine, what, reason }
    })
}
