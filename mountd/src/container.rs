//! Containers that run under crun: what pods and `lamina container` share.
//!
//! | file | its part |
//! | --- | --- |
//! | `launch`, `user`, `files` | a container as the OCI runtime gets it |
//! | `crun` | the runtime |
//! | `logs` | the output |
//! | `lock` | the right to run a container or a pod |
//!
//! What `lamina container run` alone needs:
//!
//! | file | its part |
//! | --- | --- |
//! | `place` | directories of a container |
//! | `hold`, `clients` | the process that holds a container, and its connections |
//! | `wire`, `attach` | what goes over a connection, and the other side of it |
//! | `own` | mounts, by a process of their own |
//! | `ended` | the end of a run, also of one whose process was killed |

pub mod attach;
mod clients;
pub mod crun;
pub mod ended;
pub mod files;
pub mod hold;
pub mod launch;
pub mod lock;
pub mod logs;
pub mod own;
pub mod place;
pub mod user;
mod wire;
