//! The structures of an index, little-endian and without alignment.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of an index.
pub const INDEX_MAGIC: [u8; 8] = *b"LMNIDX1\0";
/// The first bytes of the payload of the skippable frame at the start of a blob.
pub const BLOB_MAGIC: [u8; 8] = *b"LMNBLB1\0";
/// The version of the format: a reader refuses a higher major version.
pub const MAJOR: u16 = 1;
/// The version of additions that older readers may ignore.
pub const MINOR: u16 = 0;
/// Length of the head of an index; the sections follow.
pub const HEAD_LEN: usize = 512;
/// Length of the head of a blob, which is a skippable zstd frame.
pub const BLOB_HEAD_LEN: usize = 64;
/// A frame holds at most 1 << 17 bytes: 128 KiB.
pub const FRAME_LOG2: u8 = 17;
/// Length in bytes of a full frame.
pub const FRAME_LEN: usize = 1 << FRAME_LOG2;
/// The inode number of an entry that is a whiteout.
pub const WHITEOUT: u32 = u32::MAX;
/// The value that means "no content digest".
pub const NO_DIGEST: u32 = u32::MAX;
/// Files up to this size are stored in the strings.
pub const INLINE_MAX: usize = 128;

/// Kinds of sections; the number is also the position in [`Head::sections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "each holds the structure of that name")]
pub enum Kind {
    Inodes = 0,
    Dirents = 1,
    Frames = 2,
    FrameDigests = 3,
    Extents = 4,
    ContentDigests = 5,
    XattrSets = 6,
    Xattrs = 7,
    Strings = 8,
}

/// The number of kinds.
pub const SECTIONS: usize = 9;
/// Room for later kinds.
pub const SECTION_ROOM: usize = 14;

macro_rules! structs {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
            pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
        )*
    };
}

structs! {
    /// The location of a section.
    Section {
        /// Bytes per element.
        size: U32,
        /// Zero.
        reserved: U32,
        /// Byte offset in the index.
        offset: U64,
        /// The number of elements.
        count: U64,
    }

    /// The head of an index.
    Head {
        /// [`INDEX_MAGIC`].
        magic: [u8; 8],
        /// [`MAJOR`].
        major: U16,
        /// [`MINOR`].
        minor: U16,
        /// [`FRAME_LOG2`].
        frame_log2: u8,
        /// 1: BLAKE3.
        hash: u8,
        /// The number of sections.
        sections_len: U16,
        /// Features that a reader must support.
        incompatible: U64,
        /// Features that a reader may ignore.
        compatible: U64,
        /// Length of the index in bytes.
        index_len: U64,
        /// Length of the data blob in bytes.
        blob_len: U64,
        /// BLAKE3 of everything after the head.
        body_digest: [u8; 32],
        /// Zero.
        reserved: [u8; 96],
        /// The sections by kind.
        sections: [Section; SECTION_ROOM],
    }

    /// An object. Inode 0 is the root.
    Inode {
        /// Format and permission bits.
        mode: U32,
        /// Number of names in this layer; for a directory 2 plus one for each subdirectory.
        nlink: U32,
        /// Owner.
        uid: U32,
        /// Group.
        gid: U32,
        /// Length in bytes of a file or of a link target.
        size: U64,
        /// Last change of the data, seconds since 1970; negative before.
        mtime: I64,
        /// Nanoseconds of that time.
        mtime_nanos: U32,
        /// `FLAG_*`.
        flags: U32,
        /// Directory: first entry. Link, inline file: offset in the strings. Device: major number.
        /// File: first extent.
        a: U32,
        /// Directory, file: count. Link, inline file: length. Device: minor number.
        b: U32,
        /// Number of the attribute set; 0 means none.
        xattrs: U32,
        /// Number of the content digest, or [`NO_DIGEST`].
        digest: U32,
        /// Directory: the inode of its parent; the root is its own parent. Others: 0.
        parent: U32,
        /// Zero.
        reserved: U32,
    }

    /// An entry of a directory. The entries of one directory are consecutive and sorted by name.
    Dirent {
        /// Offset of the name in the strings.
        name: U32,
        /// The object, or [`WHITEOUT`].
        ino: U32,
        /// Length of the name in bytes.
        name_len: U16,
        /// `d_type`; 14 for a whiteout.
        kind: u8,
        /// Zero.
        reserved: u8,
    }

    /// A compressed frame of the blob.
    Frame {
        /// Byte offset in the blob.
        offset: U64,
        /// Length in bytes of the compressed frame.
        stored: U32,
        /// Length in bytes of its content.
        len: U32,
    }

    /// A run of data of a file: `len` bytes from `start` on, in consecutive frames. The gaps
    /// between the extents of a file are holes.
    Extent {
        /// Offset in the file.
        start: U64,
        /// Length in bytes.
        len: U64,
        /// First frame.
        frame: U32,
        /// Offset in that frame.
        frame_offset: U32,
    }
}

/// The directory hides everything that lower layers have in it.
pub const FLAG_OPAQUE: u32 = 1;
/// The content is stored in the strings.
pub const FLAG_INLINE: u32 = 2;
/// The archive had no entry for the directory: it takes the attributes of the directory below.
pub const FLAG_IMPLIED: u32 = 4;
/// All flags that a reader of this version supports.
pub const FLAGS: u32 = FLAG_OPAQUE | FLAG_INLINE | FLAG_IMPLIED;

/// A feature that older readers may ignore: directories other than the root may also have
/// [`FLAG_IMPLIED`]. An older reader shows the attributes in the index, mode 0755 and owner root.
pub const COMPATIBLE_IMPLIED: u64 = 1;

/// `d_type` of a whiteout (`DT_WHT`).
pub const DT_WHITEOUT: u8 = 14;

const _: () = {
    assert!(size_of::<Head>() == HEAD_LEN);
    assert!(size_of::<Inode>() == 64);
    assert!(size_of::<Dirent>() == 12);
    assert!(size_of::<Frame>() == 16);
    assert!(size_of::<Extent>() == 24);
};

/// The head of a blob: a skippable frame that identifies the format.
#[must_use]
pub fn blob_head() -> [u8; BLOB_HEAD_LEN] {
    let mut head = [0; BLOB_HEAD_LEN];
    let parts: [&[u8]; 4] = [
        &0x184D_2A50_u32.to_le_bytes(),
        &((BLOB_HEAD_LEN - 8) as u32).to_le_bytes(),
        &BLOB_MAGIC,
        &[FRAME_LOG2],
    ];
    for (byte, value) in head.iter_mut().zip(parts.concat()) {
        *byte = value;
    }
    head
}
