//! Lamina's library: a union of immutable layers under a writable upper, with volumes grafted
//! into the same tree, served through FUSE.
//!
//! The modules and what each may use are listed in docs/ARCHITECTURE.md; `tests/it/tidy.rs`
//! holds the code to that table.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        reason = "a test stops at the first surprise"
    )
)]
#![cfg_attr(
    feature = "shuttle",
    allow(clippy::large_enum_variant, reason = "the locks of a scheduler are large")
)]

pub mod backing;
pub mod backup;
pub mod cache;
pub mod catalog;
pub mod claim;
pub mod error;
pub mod format;
pub mod fuse;
pub mod service;
pub mod store;
pub mod sync;
pub mod sys;
pub mod transfer;
pub mod tree;
pub mod types;
pub mod union;
pub mod volume;
