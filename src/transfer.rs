//! The world outside the store: tars, directories, archives of images and registries, in and out.
//!
//! - `tar`: one layer from a tar; `directory`: one from a tree of the host;
//! - `archive`: images in archives of `docker save`, `podman save` and in OCI layouts;
//! - `registry`: images of registries, whole or in parts, and the way back;
//! - `export`: layers and images as tars, OCI layouts and docker-archives;
//! - `configuration`: the configuration of an image, made anew or changed;
//! - `path`, `marks`, `stream` and `limits`: what these share.
//!
//! What comes in goes to a [`Sink`](crate::store::sink::Sink) of the store. Nothing is unpacked to
//! a file system, so no link of an archive is ever followed. Whatever an archive states about a
//! length is checked against a limit before memory is taken for it.

pub mod archive;
pub mod configuration;
pub mod directory;
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
