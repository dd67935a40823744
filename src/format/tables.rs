//! The tables of an index that is being written.

use std::collections::HashMap;

use zerocopy::{FromZeros, IntoBytes};

use super::layout::{
    Dirent, Extent, FRAME_LOG2, Frame, HEAD_LEN, Head, INDEX_MAGIC, Inode, Kind, MAJOR, MINOR,
    SECTIONS, Section,
};
use crate::error::{Errno, Error, Result};

/// The sections of an index, in memory.
#[derive(Default)]
pub struct Tables {
    /// Objects; the first is the root, and a directory comes before everything that is in it.
    pub inodes: Vec<Inode>,
    /// Directory entries; those of one directory are consecutive and sorted by name.
    pub dirents: Vec<Dirent>,
    /// Frames in the order of the blob.
    pub frames: Vec<Frame>,
    /// The BLAKE3 digests of the frames.
    pub frame_digests: Vec<[u8; 32]>,
    /// Extents; those of one file are consecutive and sorted by offset.
    pub extents: Vec<Extent>,
    /// BLAKE3 digests of file contents.
    pub content_digests: Vec<[u8; 32]>,
    /// Length of the blob in bytes.
    pub blob_len: u64,
    /// Features that a reader may ignore.
    pub compatible: u64,
    strings: Vec<u8>,
    known_strings: HashMap<Vec<u8>, u32>,
    xattr_sets: Vec<zerocopy::little_endian::U32>,
    xattrs: Vec<u8>,
    known_sets: HashMap<Vec<u8>, u32>,
}

/// An offset or number of the format.
fn number(value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::Rule(Errno::FBIG))
}

impl Tables {
    /// Adds bytes to the strings; equal bytes are stored once.
    ///
    /// # Errors
    /// `EFBIG` beyond 4 GiB.
    pub fn string(&mut self, text: &[u8]) -> Result<u32> {
        if let Some(offset) = self.known_strings.get(text) {
            return Ok(*offset);
        }
        let offset = number(self.strings.len())?;
        number(self.strings.len() + text.len())?;
        self.strings.extend_from_slice(text);
        self.known_strings.insert(text.to_vec(), offset);
        Ok(offset)
    }

    /// Adds a set of attributes; equal sets are stored once. 0 stands for the empty set.
    ///
    /// # Errors
    /// `EFBIG` for a set that the format cannot hold.
    pub fn xattrs<'a>(
        &mut self,
        set: impl ExactSizeIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<u32> {
        if set.len() == 0 {
            return Ok(0);
        }
        let too_big = |_| Error::Rule(Errno::FBIG);
        let mut bytes = u16::try_from(set.len()).map_err(too_big)?.to_le_bytes().to_vec();
        for (name, value) in set {
            bytes.extend(u16::try_from(name.len()).map_err(too_big)?.to_le_bytes());
            bytes.extend(number(value.len())?.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        if let Some(found) = self.known_sets.get(&bytes) {
            return Ok(*found);
        }
        if self.xattr_sets.is_empty() {
            self.xattr_sets.push(0.into());
        }
        let found = number(self.xattr_sets.len())?;
        self.xattr_sets.push(number(self.xattrs.len())?.into());
        self.xattrs.extend_from_slice(&bytes);
        self.known_sets.insert(bytes, found);
        Ok(found)
    }

    /// Returns the bytes of the index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parts: [(&[u8], usize); SECTIONS] = [
            (self.inodes.as_bytes(), size_of::<Inode>()),
            (self.dirents.as_bytes(), size_of::<Dirent>()),
            (self.frames.as_bytes(), size_of::<Frame>()),
            (self.frame_digests.as_bytes(), 32),
            (self.extents.as_bytes(), size_of::<Extent>()),
            (self.content_digests.as_bytes(), 32),
            (self.xattr_sets.as_bytes(), 4),
            (&self.xattrs, 1),
            (&self.strings, 1),
        ];
        let mut head = Head::new_zeroed();
        let mut bytes = vec![0; HEAD_LEN];
        for ((part, size), section) in parts.into_iter().zip(&mut head.sections) {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            *section = Section {
                size: (size as u32).into(),
                reserved: 0.into(),
                offset: (bytes.len() as u64).into(),
                count: ((part.len() / size) as u64).into(),
            };
            bytes.extend_from_slice(part);
        }
        head.magic = INDEX_MAGIC;
        head.major = MAJOR.into();
        head.minor = MINOR.into();
        head.frame_log2 = FRAME_LOG2;
        head.hash = 1;
        head.sections_len = (SECTIONS as u16).into();
        head.index_len = (bytes.len() as u64).into();
        head.blob_len = self.blob_len.into();
        head.compatible = self.compatible.into();
        let (place, body) = bytes.split_at_mut(HEAD_LEN);
        head.body_digest = blake3::hash(body).into();
        place.copy_from_slice(head.as_bytes());
        bytes
    }
}

const _: () = assert!(Kind::Strings as usize == SECTIONS - 1);
