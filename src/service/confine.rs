//! A daemon gives up what it does not need. See [`crate::sys::confine`].
//!
//! None of it is a condition: where the kernel refuses, the daemon serves all the same and the log
//! says what is missing.

use crate::sys::confine;

/// Gives up capabilities; before the process has a second thread.
pub fn shed() {
    if let Err(error) = confine::drop_capabilities() {
        tracing::warn!(%error, "the daemon keeps its capabilities");
    }
}

/// Gives up new privileges and system calls, for all threads, once the mount is live. With
/// `network` connections are possible.
pub fn seal(network: bool) {
    if let Err(error) = confine::seal(network) {
        tracing::warn!(%error, "the system calls of the daemon are not restricted");
    }
}
