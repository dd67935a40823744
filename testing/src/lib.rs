//! The test support of Lamina's library: a file system in memory, faults beneath a mount, the
//! reference for a mount, and mounts without a kernel.
//!
//! The product never depends on this package. The unit tests of the library cannot use it either,
//! since it is built on another copy of the library than theirs: tests that need it are in
//! `tests/`. Locks and atomics come from `laminafs::sync`, so that the scheduler of the test
//! `concurrent` drives them like those of the union.

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
