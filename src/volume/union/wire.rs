//! What the process that serves a volume is asked over its socket, `control` in the directory of
//! the volume: one line of JSON, and one as the answer.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The name of the socket.
const SOCKET: &str = "control";
/// No line is longer.
pub const LINE_MAX: u64 = 1 << 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the upper a layer, and this layer the upper.
    Freeze {
        /// The id of an empty layer.
        layer: String,
    },
}

/// The answer: nothing, or why the request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The error; `None` for success.
    pub error: Option<String>,
}

/// The socket of a volume.
#[must_use]
pub fn socket(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}
