//! `lamina container run` and its companions: crun and a real image.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

#[path = "../shared/busybox.rs"]
mod busybox;
mod changes;
mod copies;
mod killed;
mod logs;
mod place;
#[path = "../shared/programs.rs"]
mod programs;
mod prune;
mod runs;
mod several;
mod terminal;
#[path = "../shared/until.rs"]
mod until;
