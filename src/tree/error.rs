//! Errors of trees.

use std::path::PathBuf;

use crate::error::HostError;

/// Result of an operation on a tree.
pub type Result<T> = std::result::Result<T, TreeError>;

/// Why a tree cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A system call on a path of the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An object cannot be made or read.
    #[error("{name}: {what}")]
    Entry {
        /// The object, printable.
        name: String,
        /// The reason.
        what: String,
    },
}

impl TreeError {
    /// Refuses an object.
    #[must_use]
    pub fn entry(path: &[u8], what: impl Into<String>) -> Self {
        Self::Entry { name: shown(path), what: what.into() }
    }
}

/// A printable form of a path, without bytes that could control a terminal.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 256;
    let text = String::from_utf8_lossy(path.get(..LONGEST).unwrap_or(path));
    let more = if path.len() > LONGEST { "..." } else { "" };
    format!("{}{more}", text.escape_debug())
}

/// The path of an object on the host.
pub(crate) fn on_host(base: &std::path::Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if path.is_empty() { base.to_owned() } else { base.join(std::ffi::OsStr::from_bytes(path)) }
}
