//! Pods that run on this host.
//!
//! A pod is held by a process of its own ([`supervise`]), which outlives the daemon and whoever
//! started it; the daemon only starts these processes and cleans up after those that were killed
//! ([`manage`]). Commands do the same without a daemon: all that they share is the catalogue, and a
//! lock in the directory of the pod ([`home`]).
//!
//! | file | its part |
//! | --- | --- |
//! | `plan`, `env`, `user`, `source`, `fault` | what the object asks for |
//! | `home` | directories and the lock |
//! | `volumes`, `files`, `claims`, `mounts` | volumes and their mounts |
//! | `launch`, `runtime` | containers as the OCI runtime gets them (`crate::container`) |
//! | `state`, `events` | the status and events |
//! | `supervise` | the process that holds a pod |
//! | `shown` | the mounts of a pod that does not run |
//! | `ends` | what is left of a pod that has ended |
//! | `manage` | the part of the daemon |

mod claims;
pub mod ends;
mod env;
mod events;
mod fault;
mod files;
mod home;
mod launch;
pub mod manage;
mod mounts;
mod plan;
mod runtime;
mod shown;
pub mod source;
mod state;
pub mod supervise;
mod user;
mod volumes;

pub use self::fault::Fault;
pub use self::home::{Home, has_home};
pub use self::plan::Plan;
pub use self::runtime::Runtime;
pub use self::shown::{mount, unmount};
