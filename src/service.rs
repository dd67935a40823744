//! The operations for any front end: mounts, images, containers, volumes, status, abilities of the
//! host.
//!
//! Nothing here depends on a command line, a mount(8) option or a protocol, and nothing prints,
//! exits or reads the environment. A [`spec::MountSpec`] describes a mount, a [`mount::Prepared`]
//! has opened and locked its parts, and a [`mount::Live`] is the mount itself.

pub mod background;
mod binds;
pub mod changes;
mod collect;
pub mod commit;
mod confine;
pub mod containers;
pub mod cp;
pub mod diff;
pub mod doctor;
pub mod ending;
pub mod export;
pub mod failure;
mod grafts;
mod holders;
pub mod hostpath;
pub mod images;
pub mod import;
mod layers;
mod made;
pub mod migrate;
pub mod mount;
pub mod mounts;
pub mod objects;
mod overlap;
mod prefill;
mod probe;
pub mod process;
pub mod prune;
pub mod publication;
pub mod pull;
pub mod push;
pub mod root;
pub mod served;
mod sizes;
pub mod snapshots;
pub mod spec;
pub mod status;
mod subpath;
pub mod unmount;
pub mod usage;
mod utab;
mod verify;
pub mod volumes;

pub use crate::backing::stated::Form as StatOverride;
pub use crate::catalog::error::CatalogError;
pub use crate::fuse::session::IoDriver;
pub use crate::sys::fuse::{UnmountFlags, VfsFlags, has_selinux};
pub use crate::sys::mount::Propagation;
pub use crate::union::{IdMap, IdRange, WhiteoutForm};
pub use crate::volume::VolumeError;
pub use failure::{Failure, Refusal};
