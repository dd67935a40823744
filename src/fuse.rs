//! The front end: a union as a FUSE file system.
//!
//! - [`wire`]: the kernel's protocol, bytes to requests and answers to bytes;
//! - [`ops`]: the adapter, one function for each operation; [`convert`]: its values;
//! - [`session`]: mounting and negotiation, the only code that names fuser;
//! - [`worker`], [`turn`]: the threads, and who reads; [`counters`];
//! - [`ahead`]: directories are listed before a walk comes to them; [`locks`]: of mounts that serve
//!   grafts.
//!
//! The front end keeps no state of an inode: node numbers and handles are the union's own.

pub mod ahead;
pub mod convert;
pub mod counters;
pub mod locks;
pub mod ops;
pub mod session;
pub mod turn;
pub mod wire;
pub mod worker;
