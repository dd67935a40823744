//! Bytes to structures and back: the index and the data blob of a layer. docs/FORMAT.md describes
//! both to the byte.
//!
//! An index is used as it lies in its file, mapped and never decoded. It is checked once, as a
//! whole, when it is opened; what reads it afterwards finds no reference out of range. Whatever a
//! hostile index holds, opening it answers [`Error::Corrupt`](crate::error::Error) or an index
//! that is safe to read.

mod check;
pub mod codec;
pub mod index;
pub mod layout;
pub mod oci;
pub mod tables;
