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
pub mod process;
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
pub use crate::catalog::error::CatalogError;
pub use crate::fuse::session::IoDriver;
pub use crate::sys::fuse::{UnmountFlags, VfsFlags, has_selinux};
pub use crate::sys::mount::Propagation;
pub use crate::union::{IdMap, IdRange, WhiteoutForm};
pub use failure::{Failure, Refusal};
