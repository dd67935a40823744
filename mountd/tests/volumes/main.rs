//! The verbs of `lamina volume` as separate processes: several at once, and killed at any step.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod holder;
mod killed;
mod killed_containers;
mod killed_images;
mod killed_union;
mod kills;
mod place;
mod several;
mod used;
mod verbs;
