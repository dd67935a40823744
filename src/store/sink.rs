//! The interface between an import and the layer that it builds.

use std::collections::BTreeMap;
use std::io::Read;

use super::error::StoreError;
use crate::types::{Name, Time};

/// Attributes of an object of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky bits; no format bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data.
    pub mtime: Time,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kind and content of an object.
pub enum Body<'a> {
    /// Directory.
    Dir,
    /// Regular file of exactly `size` bytes, which are read from `data`.
    File {
        /// The length in bytes.
        size: u64,
        /// The content.
        data: &'a mut dyn Read,
    },
    /// Symbolic link.
    Symlink {
        /// The target.
        target: Vec<u8>,
    },
    /// Character device; 0:0 is a whiteout.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// FIFO.
    Fifo,
    /// Socket.
    Socket,
}

/// Receives the objects of one layer in the order of a stream.
///
/// A path is a list of components. None of them is empty, `.`, `..`, contains `/` or NUL, or is
/// longer than 255 bytes; the empty list is the root. Missing parents are made with mode 0755,
/// owner root:root and the time 0. A later entry of the same name replaces an earlier one; a
/// directory that comes again as a directory keeps its content.
pub trait Sink {
    /// Adds an object.
    ///
    /// # Errors
    /// [`StoreError::Entry`] if a parent is not a directory; errors of `data` and of the store.
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> Result<(), StoreError>;

    /// Adds a hard link to the object at `to`, which may come later in the stream.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn link(&mut self, path: &[Name], to: &[Name]) -> Result<(), StoreError>;

    /// Hides the object that the layers below have at a path.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn whiteout(&mut self, path: &[Name]) -> Result<(), StoreError>;

    /// Hides everything that the layers below have in a directory.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn opaque(&mut self, path: &[Name]) -> Result<(), StoreError>;
}

/// Receives the structure of a tar while it is read.
pub trait TarRecorder {
    /// Receives bytes that are not content of a file.
    fn literal(&mut self, bytes: &[u8]);
    /// Receives bytes of the content of the current file, in order.
    fn content(&mut self, bytes: &[u8]);
    /// Ends the content of the current file.
    fn end_content(&mut self);
}
