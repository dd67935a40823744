//! Volumes and claims as a user of `kubectl` walks through them, against `lamina serve --kube`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod classes;
mod commands;
mod csi;
mod export;
mod hostile;
mod killed;
mod killed_snapshots;
mod kinds;
#[path = "../shared/kubectl.rs"]
mod kubectl;
mod manifests;
mod mapped;
mod place;
mod policies;
#[path = "../shared/port.rs"]
mod port;
#[path = "../shared/programs.rs"]
mod programs;
mod shown;
mod snapshots;
#[path = "../shared/until.rs"]
mod until;
mod walk;
