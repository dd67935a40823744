//! What a person meets first: messages for bad input, JSON, progress, and interrupts.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod interrupts;
mod json;
mod place;
mod terminal;
mod wrong;
