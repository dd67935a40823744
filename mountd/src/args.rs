//! Arguments that several commands share.

pub mod graft;
pub mod registry;

pub use graft::GraftArgs;
pub use registry::RegistryArgs;
