//! Tests of the library that need neither root nor a mount.
//!
//! `model` and `rules` compare the union with a reference; `crash` stops it at every change;
//! `hostile` opens forged indexes; `imports` reads archives of other programs; `golden` reads files
//! of earlier builds; `pulls` uses a small registry; `tidy` reads the sources themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod backing;
mod between;
mod counted;
mod crash;
mod flatten;
mod golden;
mod hostile;
mod imports;
mod layers;
mod listing;
mod model;
mod offline;
mod ops;
mod pulls;
mod pushes;
mod rules;
mod semantics;
mod tidy;
mod trust;
mod walk;
