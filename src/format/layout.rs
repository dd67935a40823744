//! The structures of an index, little-endian and without alignment.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of an index.
pub const INDEX_MAGIC: [u8; 8] = *b"LMNIDX1\0";
/// First bytes of the payload of the skippable frame with which a blob begins.
pub const BLOB_MAGIC: [u8; 8] = *b"LMNBLB1\0";
/// Version of the format: a reader refuses a higher major version.
pub const MAJOR: u16 = 1;
/// Version of additions that older readers may pass over.
pub const MINOR: u16 = 0;
/// Length of the head of an index; the sections follow.
pub const HEAD_LEN: usize = 512;
/// Length of the head of a blob: a skippable zstd frame.
pub const BLOB_HEAD_LEN: usize = 64;
/// A frame holds at most 1 << 17 bytes: 128 KiB.
pub const FRAME_LOG2: u8 = 17;
/// Bytes of a full frame.
pub const FRAME_LEN: usize = 1 << FRAME_LOG2;
/// The inode of an entry that is a whiteout.
pub const WHITEOUT: u32 = u32::MAX;
/// No content digest.
pub const NO_DIGEST: u32 = u32::MAX;
/// Files up to this size stand in the strings.
pub const INLINE_MAX: usize = 128;

/// Kinds of sections, which are also their places in [`Head::sections`].
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

/// Count of the kinds.
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
    /// Where a section is.
    Section {
        /// Bytes of one element.
        size: U32,
        /// Zero.
        reserved: U32,
        /// Byte offset in the index.
        offset: U64,
        /// Count of elements.
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
        /// Count of sections.
        sections_len: U16,
        /// Features that a reader must know.
        incompatible: U64,
        /// Features that a reader may pass over.
        compatible: U64,
        /// Bytes of the index.
        index_len: U64,
        /// Bytes of the data blob.
        blob_len: U64,
        /// BLAKE3 of all behind the head.
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
        /// Names in this layer; for a directory 2 and one for each subdirectory.
        nlink: U32,
        /// Owner.
        uid: U32,
        /// Group.
        gid: U32,
        /// Bytes of a file, length of a link target.
        size: U64,
        /// Last change of the data, seconds since 1970; negative before.
        mtime: I64,
        /// Nanoseconds of it.
        mtime_nanos: U32,
        /// `FLAG_*`.
        flags: U32,
        /// Directory: first entry. Link, inline file: offset in the strings. Device: major number.
        /// File: first extent.
        a: U32,
        /// Directory, file: count. Link, inline file: length. Device: minor number.
        b: U32,
        /// Number of the attribute set; 0 for none.
        xattrs: U32,
        /// Number of the digest of the content, or [`NO_DIGEST`].
        digest: U32,
        /// Directory: the directory that holds it; the root holds itself. Others: 0.
        parent: U32,
        /// Zero.
        reserved: U32,
    }

    /// An entry of a directory. Those of one directory are consecutive and sorted by name.
    Dirent {
        /// Offset of the name in the strings.
        name: U32,
        /// The object, or [`WHITEOUT`].
        ino: U32,
        /// Bytes of the name.
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
        /// Compressed bytes.
        stored: U32,
        /// Bytes of its content.
        len: U32,
    }

    /// A run of data of a file: `len` bytes from `start` on, in as many frames as it takes. What
    /// lies between the extents of a file is holes.
    Extent {
        /// Offset in the file.
        start: U64,
        /// Bytes.
        len: U64,
        /// First frame.
        frame: U32,
        /// Offset in that frame.
        frame_offset: U32,
    }
}

/// The directory hides all that lower layers have in it.
pub const FLAG_OPAQUE: u32 = 1;
/// The content stands in the strings.
pub const FLAG_INLINE: u32 = 2;
/// The archive said nothing of a directory: it has the attributes of the one below.
pub const FLAG_IMPLIED: u32 = 4;
/// All flags that a reader of this version knows.
pub const FLAGS: u32 = FLAG_OPAQUE | FLAG_INLINE | FLAG_IMPLIED;

/// A feature that older readers may pass over: [`FLAG_IMPLIED`] stands on directories other than
/// the root too. Such a reader shows what the index states, 0755 of root.
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

/// The head of a blob: a skippable frame that says what it is.
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
