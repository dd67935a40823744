//! Drops privileges that the daemon does not need. See [`crate::sys::confine`].
//!
//! This is best effort: if the kernel refuses, the daemon serves all the same and logs what failed.

use crate::sys::confine;

/// Drops capabilities; must be called before the process has a second thread.
pub fn shed() {
    if let Err(error) = confine::drop_capabilities() {
        tracing::warn!(%error, "the daemon keeps its capabilities");
    }
}

/// Forbids new privileges and unneeded system calls for all threads, once the mount is live. With
/// `network`, connections remain possible.
pub fn seal(network: bool) {
    if let Err(error) = confine::seal(network) {
        tracing::warn!(%error, "the system calls of the daemon are not restricted");
    }
}
