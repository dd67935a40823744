//! `lamina serve` over its sockets: raw HTTP, as odd clients write it, signals, restarts.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod client;
mod csi_frames;
mod csi_socket;
mod daemon;
mod ends;
mod http;
mod load;
mod manager;
mod manifests;
mod metrics;
#[path = "../shared/programs.rs"]
mod programs;
#[path = "../shared/tools.rs"]
mod tools;
#[path = "../shared/until.rs"]
mod until;
