//! Volumes go out and come in, as `lamina volume export | import | diff | backup | restore`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod faults;
mod place;
#[path = "../shared/port.rs"]
mod port;
#[path = "../shared/programs.rs"]
mod programs;
mod proxy;
mod repository;
mod restic;
mod s3;
mod tar;
mod terminal;
#[path = "../shared/tools.rs"]
mod tools;
mod transfer;
mod tree;
