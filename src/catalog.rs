//! What has a name below a data root: images and their names, containers, volumes, objects.
//!
//! The records name layers of the store by id and never open one. A record is written as a whole
//! or not at all; a directory that belongs to one appears whole under its name, and loses that
//! before it is removed.

pub mod containers;
mod database;
pub mod error;
pub mod image;
pub mod images;
pub mod name;
pub mod objects;
mod schema;
pub mod volumes;
