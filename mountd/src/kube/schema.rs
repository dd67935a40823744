//! The schema of the Kubernetes kinds that Lamina serves: what a client may ask of it, and what
//! validation and patches need.
//!
//! The types are those of Kubernetes 1.36 in `k8s-openapi`, and the kinds of
//! `snapshot.storage.k8s.io` in our own words. The crate `mountd/kube-schema` writes them, once,
//! to `schema/definitions.json.zst`: `k8s-openapi` with its schemas takes 92 seconds to build on
//! two processors and adds some 2 MB to a program, the file adds 58 kB. `scripts/kube-schema`
//! compares the file with the types, and so does the crate's own test.
//!
//! This module has no I/O: the API server asks it for documents, and answers for them.

mod definitions;
mod duplicates;
mod fields;
mod go;
mod kinds;
mod openapi;
mod operations;
mod protobuf;
mod types;

#[cfg(test)]
mod tests;

pub use duplicates::duplicate_fields;
pub use fields::{FieldProblem, strict_message, validate_fields};
pub use go::value_name;
pub use kinds::kind_named;
pub use openapi::openapi;
pub use types::{ListType, Type};
