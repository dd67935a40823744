//! What the union stands on: implementations of the traits of `union::layer`.

pub mod blob;
pub mod host;
pub mod stated;
