//! Changes of the whole process: its umask, limits, memory, signals, capabilities and namespaces.
//!
//! The library does none of these by itself. A program that serves mounts decides on them, in this
//! order: it raises its limit of descriptors, holds the signals ([`EndSignals::block`]), gives up
//! capabilities ([`shed`]), clears its umask, has freed memory returned, and mounts.

use std::os::fd::AsFd;
use std::path::Path;

use super::Failure;
use super::failure::ServiceResult;
use crate::sys;
use crate::sys::file::OFlags;

pub use super::confine::shed;
pub use crate::sys::process::{
    EndSignals, adopt_orphans, clear_umask, raise_open_files, return_memory,
};
pub use crate::sys::signals::Signals;
pub use crate::sys::socket::receive_with;
pub use crate::volume::union::holder::{Holder, Starter};

/// Moves this process, which must have one thread, into the mount namespace of a file
/// (`/proc/PID/ns/mnt`, or a bind mount of it).
///
/// # Errors
/// As open(2) and setns(2).
pub fn enter_mount_namespace(path: &Path) -> ServiceResult<()> {
    let wrap = |error| Failure::Path { what: "mount namespace", path: path.to_owned(), error };
    let file = sys::file::open_path(path, OFlags::RDONLY).map_err(wrap)?;
    sys::mount::enter_mount_namespace(file.as_fd()).map_err(wrap)
}

/// Whether this process runs as root of its user namespace.
#[must_use]
pub fn is_root() -> bool {
    sys::process::effective_ids().0 == 0
}
