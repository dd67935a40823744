//! `lamina serve --csi` over its socket, as an orchestrator calls it: every call and every error,
//! for each driver of volumes, with several clients at once and with kills in between.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod bench;
mod client;
mod codes;
mod codes_node;
mod content;
mod copies;
mod groups;
mod health;
mod host;
mod hostile;
mod identity;
mod killed;
mod kinds;
mod life;
mod moments;
mod pages;
mod pods;
mod races;
mod several;
#[path = "../shared/until.rs"]
mod until;
mod wire;
