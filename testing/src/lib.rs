//! What the tests of Lamina's library stand on: a file system in memory, faults beneath a mount,
//! the reference that a mount is held to, and mounts without a kernel.
//!
//! The product never depends on this package. The unit tests of the library cannot use it either,
//! since it is built on another copy of the library than theirs: what needs it is in `tests/`.
//! Locks and atomics come from `laminafs::sync`, so that the scheduler of the test `concurrent`
//! drives them as it drives those of the union.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

pub mod driver;
pub mod fault;
pub mod memory;
pub mod reference;
pub mod shell;
pub mod watch;
