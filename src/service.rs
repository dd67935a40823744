//! What any front end of the program may ask: mounts, volumes, status, the host's abilities.
//!
//! Nothing here knows a command line, a mount(8) option or a protocol; nothing prints, exits or
//! looks at the environment. A [`spec::MountSpec`] says what is wanted, [`mount::Prepared`] has
//! opened and locked it, [`mount::Live`] is the mount.

pub mod background;
mod binds;
pub mod changes;
pub mod commit;
pub mod containers;
pub mod diff;
pub mod doctor;
pub mod export;
pub mod failure;
mod grafts;
pub mod images;
pub mod import;
mod layers;
pub mod mount;
pub mod mounts;
mod prefill;
mod probe;
pub mod pull;
pub mod push;
pub mod spec;
pub mod status;
pub mod volumes;

pub use crate::backing::stated::Form as StatOverride;
pub use crate::fuse::session::IoDriver;
pub use crate::sys::bind::BindFlags;
pub use crate::sys::fuse::VfsFlags;
pub use crate::sys::process::EndSignals;
pub use crate::union::{IdMap, IdRange, WhiteoutForm};
pub use failure::Failure;

/// States whether this process runs as root of its user namespace.
#[must_use]
pub fn is_root() -> bool {
    crate::sys::process::effective_ids().0 == 0
}
