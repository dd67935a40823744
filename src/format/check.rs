//! The checks that make an index safe to read.
//!
//! The work is proportional to the length of the index, whatever the index holds.

use std::ops::Range;

use super::index::{Index, ROOT, corrupt, slice};
use super::layout::{
    BLOB_HEAD_LEN, DT_WHITEOUT, Dirent, Extent, FLAG_IMPLIED, FLAG_INLINE, FLAG_OPAQUE, FLAGS,
    FRAME_LEN, FRAME_LOG2, Frame, HEAD_LEN, Head, INDEX_MAGIC, INLINE_MAX, Inode, MAJOR, NO_DIGEST,
    SECTION_ROOM, SECTIONS, Section,
};
use crate::error::{Error, Result};
use crate::types::{Kind, MODE_MASK, NAME_MAX};

/// Length in bytes of one element of each kind of section.
const SIZES: [usize; SECTIONS] = [
    size_of::<Inode>(),
    size_of::<Dirent>(),
    size_of::<Frame>(),
    32,
    size_of::<Extent>(),
    32,
    4,
    1,
    1,
];

/// The longest target of a symbolic link.
const TARGET_MAX: u64 = 4095;

#[inline]
fn ensure(holds: bool, what: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(refused(what)) }
}

#[cold]
fn refused(what: &'static str) -> Error {
    corrupt(what)
}

pub(super) fn head(head: &Head, len: usize) -> Result<()> {
    ensure(head.magic == INDEX_MAGIC, "this is not an index")?;
    ensure(head.major.get() == MAJOR, "the format is of another version")?;
    ensure(head.incompatible.get() == 0, "the index uses a feature that is not known here")?;
    ensure(head.frame_log2 == FRAME_LOG2 && head.hash == 1, "frame size or hash is not known")?;
    ensure(head.index_len.get() == len as u64, "the index has another length than its head")?;
    let count = usize::from(head.sections_len.get());
    ensure((SECTIONS..=SECTION_ROOM).contains(&count), "count of sections")
}

pub(super) fn sections(head: &Head, len: usize) -> Result<[Range<usize>; SECTIONS]> {
    let mut found: [Range<usize>; SECTIONS] = Default::default();
    for ((range, size), section) in found.iter_mut().zip(SIZES).zip(&head.sections) {
        *range =
            range_of(section, size, len).ok_or_else(|| corrupt("a section is out of range"))?;
    }
    Ok(found)
}

fn range_of(section: &Section, size: usize, len: usize) -> Option<Range<usize>> {
    if section.size.get() as usize != size {
        return None;
    }
    let start = usize::try_from(section.offset.get()).ok()?;
    let bytes = usize::try_from(section.count.get()).ok()?.checked_mul(size)?;
    let end = start.checked_add(bytes)?;
    (start >= HEAD_LEN && end <= len).then_some(start..end)
}

pub(super) fn contents(index: &Index) -> Result<()> {
    let root = index.inode(ROOT).ok_or_else(|| corrupt("no root"))?;
    ensure(root.kind() == Kind::Dir && root.parent.get() == ROOT, "the root is not a directory")?;
    let full_runs = frames(index)?;
    xattrs(index)?;
    let tables = Tables {
        sets: index.xattr_sets().len(),
        digests: index.content_digests().len(),
        dirents: index.dirents().len(),
        extents: index.extents(),
        frames: index.frames(),
        strings: index.strings(),
        full_runs: &full_runs,
    };
    for inode in index.inodes() {
        object(inode, &tables)?;
    }
    entries(index)
}

/// The tables that objects refer to, looked up once for all objects.
struct Tables<'a> {
    sets: usize,
    digests: usize,
    dirents: usize,
    extents: &'a [Extent],
    frames: &'a [Frame],
    strings: &'a [u8],
    full_runs: &'a [u32],
}

/// Checks the frames. Returns for each frame the number of consecutive full frames that start with
/// it.
fn frames(index: &Index) -> Result<Vec<u32>> {
    let frames = index.frames();
    ensure(index.frame_digests().len() == frames.len(), "frames and digests differ in number")?;
    ensure(u32::try_from(frames.len()).is_ok(), "too many frames")?;
    let mut end = BLOB_HEAD_LEN as u64;
    for frame in frames {
        let (offset, stored, len) = (frame.offset.get(), frame.stored.get(), frame.len.get());
        ensure(offset >= end, "frames overlap")?;
        end =
            offset.checked_add(stored.into()).ok_or_else(|| corrupt("a frame is out of range"))?;
        ensure((1..=FRAME_LEN).contains(&(len as usize)), "length of a frame")?;
        ensure((1..=2 * FRAME_LEN).contains(&(stored as usize)), "stored length of a frame")?;
    }
    ensure(end <= index.blob_len(), "a frame lies behind the blob")?;
    let mut runs = vec![0_u32; frames.len()];
    let mut run = 0_u32;
    for (frame, slot) in frames.iter().zip(&mut runs).rev() {
        run = if frame.len.get() as usize == FRAME_LEN { run.saturating_add(1) } else { 0 };
        *slot = run;
    }
    Ok(runs)
}

fn xattrs(index: &Index) -> Result<()> {
    for number in 1..index.xattr_sets().len() {
        let set = index.xattr_set(u32::try_from(number).unwrap_or(0));
        let said = set.left();
        let mut read = 0_u16;
        for (name, _) in set {
            ensure((1..=NAME_MAX).contains(&name.len()), "length of an attribute name")?;
            ensure(!name.contains(&0), "an attribute name holds a NUL")?;
            read += 1;
        }
        ensure(said == read && said > 0, "an attribute set is cut off")?;
    }
    Ok(())
}

fn object(inode: &Inode, tables: &Tables<'_>) -> Result<()> {
    let flags = inode.flags.get();
    let (first, count, size) = (inode.a.get(), inode.b.get(), inode.size.get());
    ensure(flags & !FLAGS == 0, "a flag that is not known")?;
    ensure(inode.mode.get() & !(MODE_MASK | 0o170_000) == 0, "an invalid mode")?;
    ensure(inode.mtime_nanos.get() < 1_000_000_000, "an invalid time")?;
    let set = inode.xattrs.get() as usize;
    ensure(set == 0 || set < tables.sets, "an attribute set is out of range")?;
    let digest = inode.digest.get();
    let known = (digest as usize) < tables.digests;
    ensure(digest == NO_DIGEST || known, "a digest is out of range")?;
    let kind = inode.kind();
    ensure(kind == Kind::Dir || flags & FLAG_OPAQUE == 0, "opaque, and no directory")?;
    ensure(kind == Kind::Dir || flags & FLAG_IMPLIED == 0, "implied, and no directory")?;
    ensure(kind == Kind::File || flags & FLAG_INLINE == 0, "inline, and no file")?;
    match kind {
        Kind::Dir => ensure(in_range(first, count, tables.dirents), "entries out of range"),
        Kind::Symlink => {
            ensure((1..=TARGET_MAX).contains(&size), "length of a link target")?;
            ensure(size == u64::from(count), "length of a link target")?;
            let target = slice(tables.strings, first, count);
            ensure(!target.is_empty(), "a link target is out of range")
        }
        Kind::File if flags & FLAG_INLINE != 0 => {
            let text = slice(tables.strings, first, count);
            ensure(size == text.len() as u64 && text.len() <= INLINE_MAX, "inline content")
        }
        Kind::File => {
            ensure(in_range(first, count, tables.extents.len()), "extents out of range")?;
            extents(inode, tables)
        }
        Kind::Unknown => Err(corrupt("an object of no kind")),
        _ => Ok(()),
    }
}

fn in_range(first: u32, count: u32, len: usize) -> bool {
    (first as usize).checked_add(count as usize).is_some_and(|end| end <= len)
}

fn extents(inode: &Inode, tables: &Tables<'_>) -> Result<()> {
    let mut end = 0;
    for extent in slice(tables.extents, inode.a.get(), inode.b.get()) {
        ensure(extent.start.get() >= end && extent.len.get() > 0, "extents overlap")?;
        let sum = extent.start.get().checked_add(extent.len.get());
        end = sum.ok_or_else(|| corrupt("an extent is out of range"))?;
        ensure(run_is_there(extent, tables), "an extent is out of its frames")?;
    }
    ensure(end <= inode.size.get(), "an extent lies behind the end of its file")
}

// All frames of a run except the last are full, so the frame of an offset follows by division.
fn run_is_there(extent: &Extent, tables: &Tables<'_>) -> bool {
    let first = extent.frame.get() as usize;
    let count = extent.frame_count();
    let Some(last) = usize::try_from(count - 1).ok().and_then(|more| first.checked_add(more))
    else {
        return false;
    };
    let Some(last) = tables.frames.get(last) else { return false };
    let full = tables.full_runs.get(first).copied().unwrap_or(0);
    let before_last = (count - 1) * FRAME_LEN as u64;
    let in_last = u64::from(extent.frame_offset.get()) + extent.len.get() - before_last;
    (extent.frame_offset.get() as usize) < FRAME_LEN
        && u64::from(full) >= count - 1
        && in_last <= u64::from(last.len.get())
}

// Every entry belongs to one directory. Every directory except the root has exactly one entry, in
// the directory that it names as its parent, and the parent has a lower number. So there is no
// cycle.
fn entries(index: &Index) -> Result<()> {
    let (inodes, dirents, strings) = (index.inodes(), index.dirents(), index.strings());
    let mut names = vec![0_u32; inodes.len()];
    let mut used = 0_usize;
    for (dir, of) in inodes.iter().enumerate().filter(|(_, inode)| inode.kind() == Kind::Dir) {
        let dir = u32::try_from(dir).map_err(|_| corrupt("too many objects"))?;
        let entries = slice(dirents, of.a.get(), of.b.get());
        used = used.saturating_add(entries.len());
        ensure(used <= dirents.len(), "an entry is in two directories")?;
        let mut before: &[u8] = b"";
        for entry in entries {
            let name = slice(strings, entry.name.get(), entry.name_len.get().into());
            check_name(name)?;
            ensure(before < name, "entries are not sorted")?;
            before = name;
            let Some(ino) = entry.object() else {
                ensure(entry.kind == DT_WHITEOUT, "kind of a whiteout")?;
                continue;
            };
            let inode = inodes.get(ino as usize);
            let inode = inode.ok_or_else(|| corrupt("an entry of no object"))?;
            ensure(entry.kind == inode.kind() as u8, "kind of an entry")?;
            if inode.kind() == Kind::Dir {
                ensure(inode.parent.get() == dir && dir < ino, "a directory is not in its parent")?;
            }
            if let Some(count) = names.get_mut(ino as usize) {
                *count += 1;
            }
        }
    }
    for (inode, count) in inodes.iter().zip(&names).skip(1) {
        let expected = if inode.kind() == Kind::Dir { 1 } else { inode.nlink.get() };
        ensure(*count == expected && *count > 0, "count of the names of an object")?;
    }
    ensure(names.first() == Some(&0), "the root has a name")
}

fn check_name(name: &[u8]) -> Result<()> {
    let plain = (1..=NAME_MAX).contains(&name.len()) && !matches!(name, b"." | b"..");
    ensure(plain && !name.iter().any(|byte| matches!(byte, b'/' | 0)), "an invalid name")
}
