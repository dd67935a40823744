//! What is asked for: an engine, and which of its objects.

use std::fmt;
use std::path::PathBuf;

use crate::transfer::engine::Form;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// podman.
    Podman,
}

impl EngineKind {
    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    pub(super) const fn default_storage(self) -> &'static str {
        match self {
            Self::Docker => "/var/lib/docker",
            Self::Podman => "/var/lib/containers/storage",
        }
    }

    pub(super) const fn form(self) -> Form {
        match self {
            Self::Docker => Form::Docker,
            Self::Podman => Form::Podman,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "podman",
        })
    }
}

/// Where an engine is.
#[derive(Debug, Clone)]
pub struct Source {
    /// Which engine it is.
    pub kind: EngineKind,
    /// The socket of its API, if it is not at its usual place.
    pub socket: Option<PathBuf>,
    /// The root of its storage. Without a socket the engine is not asked then.
    pub storage_root: Option<PathBuf>,
}

/// What is taken over.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names or ids of images, and names of volumes; all if it is empty.
    pub names: Vec<String>,
    /// No volumes.
    pub only_images: bool,
    /// No images.
    pub only_volumes: bool,
    /// Also images without a name, and volumes whose name is 64 digits.
    pub all: bool,
    /// Also volumes that a running container uses.
    pub live: bool,
    /// Volumes are moved, not copied.
    pub adopt: bool,
}
