//! Locks and atomics of what several requests share: the union and the layers of tests.
//!
//! Ordinarily these are the primitives of `parking_lot` and of the standard library under one
//! roof, and cost nothing. With the feature `shuttle` a scheduler decides at each of them which
//! thread runs next, so that the test `concurrent` can try the orders of two requests one by one
//! and repeat the one that failed. Then nothing here works outside of that scheduler.
//!
//! `union` and the package `laminafs-testing` take theirs from here and from nowhere else;
//! `tests/it/tidy.rs` holds them to it. Shared ownership (`Arc`) decides nothing and stays that of
//! the standard library.

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

// What is set once shows no order of its own; no thread waits in it, since all values are at hand.
pub use std::sync::OnceLock;
pub use std::sync::atomic::Ordering;
