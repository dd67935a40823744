//! Import and export: tars, directories, archives of images and registries.
//!
//! - `tar`: a layer from a tar; `directory`: a layer from a tree of the host;
//! - `archive`: images in archives of `docker save`, `podman save` and in OCI layouts;
//! - `registry`: images of registries, whole or in part, in both directions;
//! - `engine`: images in the storage of Docker and podman, read in place;
//! - `export`: layers and images as tars, OCI layouts and docker-archives;
//! - `configuration`: the configuration of an image, new or changed;
//! - `path`, `marks`, `stream` and `limits`: shared parts.
//!
//! Imports write to a [`Sink`](crate::store::sink::Sink) of the store. Nothing is unpacked to a
//! file system, so no link of an archive is ever followed. Every length that an archive states is
//! checked against a limit before memory is allocated for it.

pub mod archive;
pub mod configuration;
pub mod directory;
pub mod engine;
pub mod error;
pub mod export;
mod limits;
mod marks;
mod path;
pub mod registry;
mod stream;
pub mod tar;
#[cfg(test)]
mod testing;
