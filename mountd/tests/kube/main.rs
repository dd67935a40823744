//! `lamina serve --kube` over its socket: kubectl as people use it, and HTTPS by hand for what
//! kubectl does not do.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod cases;
mod client;
mod daemon;
mod kubectl;
mod limits;
#[path = "../shared/port.rs"]
mod port;
#[path = "../shared/programs.rs"]
mod programs;
mod requests;
mod second;
mod several;
mod transcript;
#[path = "../shared/until.rs"]
mod until;
mod walk;
mod wrong;
