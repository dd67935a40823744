//! The verbs of `lamina volume` as separate processes: several at once, and killed at any step.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod killed;
mod place;
mod several;
mod verbs;
