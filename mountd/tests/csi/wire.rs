//! The messages and clients of the Container Storage Interface, from `proto/csi.proto`.
#![allow(
    missing_docs,
    dead_code,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated, with servers; the specification documents the fields"
)]

tonic::include_proto!("csi.v1");
