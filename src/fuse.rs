//! The front end: a union as a FUSE file system.
//!
//! - [`wire`]: the kernel's protocol: decodes requests and encodes replies;
//! - [`ops`]: the adapter, one function for each operation; [`convert`]: its values;
//! - [`gate`]: requests side by side, and a change of the layers alone;
//! - [`session`]: mounting and negotiation, the only code that names fuser;
//! - [`worker`], [`turn`]: the threads, and which of them reads; [`throttle`]: limits on speed;
//!   [`counters`];
//! - [`ahead`]: lists directories before a walk reaches them; [`locks`]: locks of mounts that serve
//!   grafts.
//!
//! The front end keeps no state of an inode: node numbers and handles are the union's own.

pub mod ahead;
pub mod convert;
pub mod counters;
pub mod gate;
pub mod locks;
pub mod ops;
pub mod session;
pub mod throttle;
pub mod turn;
pub mod wire;
pub mod worker;
