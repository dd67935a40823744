//! The messages and services of the Container Storage Interface, from `proto/csi.proto`.
//!
//! No message with a field `secrets` is ever printed: `Debug` would show them.
#![allow(
    missing_docs,
    dead_code,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated, with clients; the specification documents the fields"
)]

tonic::include_proto!("csi.v1");
