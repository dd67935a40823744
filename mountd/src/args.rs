//! Arguments that several commands share.

mod fields;
pub mod graft;
mod list;
pub mod registry;
mod time;

pub use graft::GraftArgs;
pub use list::ListArgs;
pub use registry::RegistryArgs;
pub use time::time;
