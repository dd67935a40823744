//! What any front end of the program may ask: mounts, volumes, status, the host's abilities.
//!
//! Nothing here knows a command line, a mount(8) option or a protocol; nothing prints, exits or
//! looks at the environment. A [`spec::MountSpec`] says what is wanted, [`mount::Prepared`] has
//! opened and locked it, [`mount::Live`] is the mount.

pub mod background;
mod binds;
pub mod changes;
mod collect;
pub mod commit;
mod confine;
pub mod containers;
pub mod diff;
pub mod doctor;
pub mod ending;
pub mod export;
pub mod failure;
mod grafts;
mod holders;
pub mod images;
pub mod import;
mod layers;
mod made;
pub mod mount;
pub mod mounts;
mod overlap;
mod prefill;
mod probe;
pub mod pull;
pub mod push;
pub mod root;
pub mod spec;
pub mod status;
pub mod unmount;
mod utab;
mod verify;
pub mod volumes;

pub use crate::backing::stated::Form as StatOverride;
pub use crate::fuse::session::IoDriver;
pub use crate::sys::bind::BindFlags;
pub use crate::sys::fuse::{UnmountFlags, VfsFlags, has_selinux};
pub use crate::sys::mount::Propagation;
pub use crate::sys::process::EndSignals;
pub use crate::union::{IdMap, IdRange, WhiteoutForm};
pub use confine::shed;
pub use failure::{Failure, Refusal};

/// Moves this process, which must have one thread, into the mount namespace that a file names
/// (`/proc/PID/ns/mnt`, or a bind mount of it).
///
/// # Errors
/// As open(2) and setns(2).
pub fn enter_mount_namespace(path: &std::path::Path) -> failure::Outcome<()> {
    use std::os::fd::AsFd;
    let wrap = |error| Failure::Path { what: "mount namespace", path: path.to_owned(), error };
    let file = crate::sys::file::open_path(path, crate::sys::file::OFlags::RDONLY);
    crate::sys::mount::enter_mount_namespace(file.map_err(wrap)?.as_fd()).map_err(wrap)
}

/// States whether this process runs as root of its user namespace.
#[must_use]
pub fn is_root() -> bool {
    crate::sys::process::effective_ids().0 == 0
}
