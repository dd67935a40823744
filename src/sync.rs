//! Locks and atomics for state that several requests share: in the union and the layers of tests.
//!
//! Ordinarily these are the primitives of `parking_lot` and of the standard library in one place,
//! at no cost. With the feature `shuttle` a scheduler decides at each of them which thread runs
//! next, so that the test `concurrent` can try the orders of two requests one by one and repeat the
//! one that failed. Then nothing here works outside of that scheduler.
//!
//! `union` and the package `laminafs-testing` take their primitives from here only, which
//! `tests/it/tidy.rs` checks. Shared ownership (`Arc`) does not depend on the order of threads and
//! stays that of the standard library.

#[cfg(feature = "shuttle")]
mod checked;

#[cfg(feature = "shuttle")]
pub use checked::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "shuttle")]
pub use shuttle::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};
#[cfg(feature = "shuttle")]
pub use shuttle::thread_local;

#[cfg(not(feature = "shuttle"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(feature = "shuttle"))]
pub use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};
#[cfg(not(feature = "shuttle"))]
pub use std::thread_local;

// A value that is set once has no order of its own; no thread waits in it, since all values exist
// already.
pub use std::sync::OnceLock;
pub use std::sync::atomic::Ordering;
