//! The program of a container that is run, and the state of its last run.

use serde::{Deserialize, Serialize};

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The network of the host.
    #[default]
    Host,
    /// A network of its own, without devices but the loopback.
    None,
}

/// How a container is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Command and arguments.
    pub args: Vec<String>,
    /// Variables, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// The working directory; empty for `/`.
    pub workdir: String,
    /// `USER[:GROUP]` by names or numbers; empty for root.
    pub user: String,
    /// The name of the host.
    pub hostname: String,
    /// Whether the root cannot be written.
    pub read_only: bool,
    /// The network.
    pub network: Network,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Whether the container is removed when the program ends.
    pub remove: bool,
    /// The name of the signal that asks it to end, without `SIG`; empty for `TERM`.
    pub stop_signal: String,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It runs, or the process that held it was killed.
    Running,
    /// It has ended.
    Exited,
}

/// The last run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The state.
    pub state: RunState,
    /// The time of the start (RFC 3339).
    pub started: String,
    /// The time of the end (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// The exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The reason why it did not begin, or ended without an exit code of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
