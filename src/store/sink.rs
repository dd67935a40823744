//! What an import gives to a layer that is being built.

use std::collections::BTreeMap;
use std::io::Read;

use super::error::StoreError;
use crate::types::{Name, Time};

/// Attributes of an object of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky; no format bits.
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

/// What an object is.
pub enum Body<'a> {
    /// Directory.
    Dir,
    /// Regular file of exactly `size` bytes, which `data` gives.
    File {
        /// Bytes.
        size: u64,
        /// The content.
        data: &'a mut dyn Read,
    },
    /// Symbolic link.
    Symlink {
        /// Where it points.
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

/// Takes the objects of one layer in the order of a stream.
///
/// A path is a list of components, none of them empty, `.`, `..` or with `/` or NUL, none longer
/// than 255 bytes; the empty list is the root. Missing parents are made as 0755, root:root, of
/// 1970. A later entry of the same name replaces an earlier one; a directory keeps what is in it
/// when it comes again as a directory.
pub trait Sink {
    /// Makes an object.
    ///
    /// # Errors
    /// [`StoreError::Entry`] where a parent is no directory; what `data` or the store answers.
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> Result<(), StoreError>;

    /// Gives one more name to the object at `to`, which may come later in the stream.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn link(&mut self, path: &[Name], to: &[Name]) -> Result<(), StoreError>;

    /// Hides what the layers below have at a path.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn whiteout(&mut self, path: &[Name]) -> Result<(), StoreError>;

    /// Hides all that the layers below have in a directory.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn opaque(&mut self, path: &[Name]) -> Result<(), StoreError>;
}

/// Hears how a tar is written while it is read.
pub trait TarRecorder {
    /// Bytes that are no content of a file.
    fn literal(&mut self, bytes: &[u8]);
    /// Bytes of the content of the file at hand, in order.
    fn content(&mut self, bytes: &[u8]);
    /// The file at hand ends.
    fn end_content(&mut self);
}
