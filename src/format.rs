//! Conversion between bytes and structures: the index and the data blob of a layer. docs/FORMAT.md
//! describes both to the byte.
//!
//! An index is used as it lies in its file: it is mapped and never decoded. It is checked as a
//! whole when it is opened, so that later readers find no reference out of range. Whatever bytes a
//! hostile index holds, opening it returns either [`Error::Corrupt`](crate::error::Error) or an
//! index that is safe to read.

mod check;
pub mod codec;
pub mod index;
pub mod layout;
pub mod oci;
pub mod tables;
