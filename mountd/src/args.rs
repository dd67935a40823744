//! Arguments that several commands share.

mod fields;
pub mod graft;
mod list;
pub mod registry;

pub use graft::GraftArgs;
pub use list::ListArgs;
pub use registry::RegistryArgs;
