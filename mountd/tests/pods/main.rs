//! Pods that run: `kubectl`, the daemon, crun and a real image.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod bounds;
#[path = "../shared/busybox.rs"]
mod busybox;
mod claims;
mod commands;
mod deletion;
mod images;
mod killed;
#[path = "../shared/kubectl.rs"]
mod kubectl;
mod manifests;
mod place;
#[path = "../shared/port.rs"]
mod port;
#[path = "../shared/programs.rs"]
mod programs;
mod restarts;
mod several;
mod stopped;
#[path = "../shared/until.rs"]
mod until;
mod volumes;
