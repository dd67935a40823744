//! The index of a layer: everything except the data of its files.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::check;
use super::layout::{
    COMPATIBLE_IMPLIED, Dirent, Extent, FLAG_IMPLIED, FLAG_INLINE, FLAG_OPAQUE, FRAME_LEN, Frame,
    HEAD_LEN, Head, Inode, Kind, NO_DIGEST, SECTIONS, WHITEOUT,
};
use crate::error::{Error, Result};
use crate::types;

/// Memory that holds an index: a mapping or a vector.
pub type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// The number of the root inode.
pub const ROOT: u32 = 0;

/// A checked index.
pub struct Index {
    bytes: Bytes,
    sections: [Range<usize>; SECTIONS],
    blob_len: u64,
    compatible: u64,
}

/// The content of a regular file.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// The whole content.
    Inline(&'a [u8]),
    /// Extents in the blob, sorted by their offset in the file; the rest is holes.
    Extents(&'a [Extent]),
}

impl Index {
    /// Checks a whole index, including its digest.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the reason.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let (head, body) =
            Head::ref_from_prefix((*bytes).as_ref()).map_err(|_| corrupt("no head"))?;
        let same = blake3::hash(body) == blake3::Hash::from(head.body_digest);
        let index = Self::open_known(bytes)?;
        if same { Ok(index) } else { Err(corrupt("the digest of the index differs")) }
    }

    /// The length of the index and the length of its blob, as the head of the index states them.
    /// Nothing more can be read before the rest of the index is there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are not a head, or the sections do not add up to the length.
    pub fn declared(head: &[u8; HEAD_LEN]) -> Result<(u64, u64)> {
        let (head, _) = Head::ref_from_prefix(head).map_err(|_| corrupt("no head"))?;
        let len = usize::try_from(head.index_len.get()).map_err(|_| corrupt("too long"))?;
        check::head(head, len)?;
        let sections = check::sections(head, len)?;
        let used = sections.iter().map(Range::len).sum::<usize>();
        // Each section may be padded to a multiple of 8 bytes.
        if used + HEAD_LEN + 8 * SECTIONS < len {
            return Err(corrupt("the index has room that no section uses"));
        }
        Ok((head.index_len.get(), head.blob_len.get()))
    }

    /// Checks an index except its digest, for a caller that compares a digest of the whole file.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open_known(bytes: Bytes) -> Result<Self> {
        let all = (*bytes).as_ref();
        let (head, _) = Head::ref_from_prefix(all).map_err(|_| corrupt("no head"))?;
        check::head(head, all.len())?;
        let sections = check::sections(head, all.len())?;
        let (blob_len, compatible) = (head.blob_len.get(), head.compatible.get());
        let index = Self { bytes, sections, blob_len, compatible };
        check::contents(&index)?;
        Ok(index)
    }

    /// The length in bytes of the blob that belongs to this index.
    #[must_use]
    pub const fn blob_len(&self) -> u64 {
        self.blob_len
    }

    /// Whether directories other than the root may have the attributes of the ones below.
    #[must_use]
    pub const fn has_implied(&self) -> bool {
        self.compatible & COMPATIBLE_IMPLIED != 0
    }

    fn section(&self, kind: Kind) -> &[u8] {
        let range = self.sections.get(kind as usize).cloned().unwrap_or_default();
        (*self.bytes).as_ref().get(range).unwrap_or_default()
    }

    fn table<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, kind: Kind) -> &[T] {
        <[T]>::ref_from_bytes(self.section(kind)).unwrap_or_default()
    }

    /// All objects.
    #[must_use]
    pub fn inodes(&self) -> &[Inode] {
        self.table(Kind::Inodes)
    }

    /// An object.
    #[must_use]
    pub fn inode(&self, ino: u32) -> Option<&Inode> {
        self.inodes().get(ino as usize)
    }

    /// All entries of all directories.
    #[must_use]
    pub fn dirents(&self) -> &[Dirent] {
        self.table(Kind::Dirents)
    }

    /// The entries of a directory, sorted by name; empty for an object that is not a directory.
    #[must_use]
    pub fn entries(&self, dir: u32) -> &[Dirent] {
        let Some(inode) = self.inode(dir).filter(|inode| inode.kind() == types::Kind::Dir) else {
            return &[];
        };
        slice(self.dirents(), inode.a.get(), inode.b.get())
    }

    /// The name of an entry.
    #[must_use]
    pub fn name(&self, entry: &Dirent) -> &[u8] {
        self.string(entry.name.get(), entry.name_len.get().into())
    }

    /// An entry of a directory by its name.
    #[must_use]
    pub fn find(&self, dir: u32, name: &[u8]) -> Option<&Dirent> {
        let (entries, strings) = (self.entries(dir), self.strings());
        let name_of =
            |entry: &Dirent| slice(strings, entry.name.get(), entry.name_len.get().into());
        let at = entries.binary_search_by(|entry| name_of(entry).cmp(name)).ok()?;
        entries.get(at)
    }

    /// All strings.
    pub(super) fn strings(&self) -> &[u8] {
        self.section(Kind::Strings)
    }

    /// A range of bytes of the strings.
    #[must_use]
    pub fn string(&self, offset: u32, len: u32) -> &[u8] {
        slice(self.strings(), offset, len)
    }

    /// The target of a symbolic link.
    #[must_use]
    pub fn target(&self, inode: &Inode) -> &[u8] {
        self.string(inode.a.get(), inode.b.get())
    }

    /// The content of a regular file.
    #[must_use]
    pub fn content(&self, inode: &Inode) -> Content<'_> {
        let (first, count) = (inode.a.get(), inode.b.get());
        match inode.flags.get() & FLAG_INLINE {
            0 => Content::Extents(slice(self.table(Kind::Extents), first, count)),
            _ => Content::Inline(self.string(first, count)),
        }
    }

    /// All extents.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        self.table(Kind::Extents)
    }

    /// All frames.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.table(Kind::Frames)
    }

    /// BLAKE3 of the compressed bytes of each frame.
    #[must_use]
    pub fn frame_digests(&self) -> &[[u8; 32]] {
        self.table(Kind::FrameDigests)
    }

    /// BLAKE3 of contents.
    #[must_use]
    pub fn content_digests(&self) -> &[[u8; 32]] {
        self.table(Kind::ContentDigests)
    }

    /// The BLAKE3 of the content of a file, if it is known.
    #[must_use]
    pub fn content_digest(&self, inode: &Inode) -> Option<&[u8; 32]> {
        let number = inode.digest.get();
        (number != NO_DIGEST).then(|| self.content_digests().get(number as usize))?
    }

    /// The offsets of the attribute sets.
    pub(super) fn xattr_sets(&self) -> &[zerocopy::little_endian::U32] {
        self.table(Kind::XattrSets)
    }

    /// The extended attributes of an object, by name and value.
    #[must_use]
    pub fn xattrs(&self, inode: &Inode) -> Xattrs<'_> {
        let number = inode.xattrs.get();
        match number {
            0 => Xattrs { rest: &[], left: 0 },
            _ => self.xattr_set(number),
        }
    }

    pub(super) fn xattr_set(&self, number: u32) -> Xattrs<'_> {
        let offset = self.xattr_sets().get(number as usize).map_or(0, |offset| offset.get());
        let bytes = self.section(Kind::Xattrs).get(offset as usize..).unwrap_or_default();
        match bytes.split_first_chunk() {
            Some((count, rest)) => Xattrs { rest, left: u16::from_le_bytes(*count) },
            None => Xattrs { rest: &[], left: 0 },
        }
    }
}

/// Iterates over the attributes of a set.
#[derive(Debug, Clone)]
pub struct Xattrs<'a> {
    rest: &'a [u8],
    left: u16,
}

impl Xattrs<'_> {
    /// The number of attributes still to be read.
    #[must_use]
    pub const fn left(&self) -> u16 {
        self.left
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name_len, rest) = self.rest.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_len).into())?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl Inode {
    /// The kind of the object.
    #[must_use]
    pub const fn kind(&self) -> types::Kind {
        types::Kind::from_mode(self.mode.get())
    }

    /// Whether no archive entry gave the attributes: the directory was implied by its content.
    #[must_use]
    pub const fn is_implied(&self) -> bool {
        self.flags.get() & FLAG_IMPLIED != 0
    }

    /// Whether this is a directory that hides the layers below it.
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        self.flags.get() & FLAG_OPAQUE != 0
    }
}

impl Dirent {
    /// The object; `None` for a whiteout.
    #[must_use]
    pub fn object(&self) -> Option<u32> {
        let ino = self.ino.get();
        (ino != WHITEOUT).then_some(ino)
    }
}

impl Extent {
    /// The number of frames that the extent touches.
    #[must_use]
    pub const fn frame_count(&self) -> u64 {
        let behind = self.len.get().saturating_add(self.frame_offset.get() as u64);
        behind.div_ceil(FRAME_LEN as u64)
    }

    /// The offset in the file of the first byte after the extent.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.get().saturating_add(self.len.get())
    }
}

pub(super) fn slice<T>(all: &[T], first: u32, count: u32) -> &[T] {
    let first = first as usize;
    all.get(first..first.saturating_add(count as usize)).unwrap_or_default()
}

pub(super) fn corrupt(what: impl Into<String>) -> Error {
    Error::Corrupt { what: what.into() }
}

const _: () = assert!(HEAD_LEN == size_of::<Head>());
