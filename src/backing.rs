//! Implementations of the traits of `union::layer`, on which the union stands.

pub mod blob;
pub mod counted;
pub mod host;
pub mod stated;
