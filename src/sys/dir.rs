//! Entries of directories: listing, making, linking, renaming, removing.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, RawDir, RenameFlags as RawRename};

use crate::error::Result;
use crate::sys::refused;
use crate::types::{Kind, MODE_MASK, RawEntry, RenameFlags};

/// Bytes that one getdents64(2) may fill: some thousand entries.
const LISTING_BYTES: usize = 64 * 1024;
/// The minimum, and the bytes for each requested entry: enough for a name of 45 bytes.
const LISTING_BYTES_MIN: usize = 4096;
const ENTRY_BYTES: usize = 64;

thread_local! {
    static LISTING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn kind(found: FileType) -> Kind {
    match found {
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char,
        FileType::Directory => Kind::Dir,
        FileType::BlockDevice => Kind::Block,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}

/// Passes the entries behind the position of the descriptor to `sink`, without `.` and `..`, until
/// it returns false or the end is reached. The position is undefined afterwards.
///
/// # Errors
/// As getdents64(2).
pub fn getdents(dir: BorrowedFd<'_>, sink: &mut dyn FnMut(RawEntry<'_>) -> bool) -> Result<()> {
    getdents_about(dir, u64::MAX, sink)
}

/// As [`getdents`], for a caller that takes about `count` entries: not many more are read.
///
/// # Errors
/// As getdents64(2).
pub fn getdents_about(
    dir: BorrowedFd<'_>,
    count: u64,
    sink: &mut dyn FnMut(RawEntry<'_>) -> bool,
) -> Result<()> {
    // Taken, not borrowed: the consumer may list another directory on this thread.
    let mut buffer = LISTING.take();
    buffer.reserve_exact(LISTING_BYTES);
    let wanted = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(ENTRY_BYTES);
    let listed = read_entries(dir, &mut buffer, wanted, sink);
    LISTING.set(buffer);
    listed
}

fn read_entries(
    dir: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    wanted: usize,
    sink: &mut dyn FnMut(RawEntry<'_>) -> bool,
) -> Result<()> {
    let space = buffer.spare_capacity_mut();
    let len = wanted.clamp(LISTING_BYTES_MIN, LISTING_BYTES).min(space.len());
    let mut entries = RawDir::new(dir, space.split_at_mut(len).0);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(refused("getdents64"))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let (ino, next) = (entry.ino(), entry.next_entry_cookie());
        if !sink(RawEntry { name, ino, kind: kind(entry.file_type()), next }) {
            break;
        }
    }
    Ok(())
}

/// Returns the target of a symbolic link; an empty name is a link opened with `O_PATH`.
///
/// # Errors
/// As readlinkat(2).
pub fn readlinkat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new())
        .map(std::ffi::CString::into_bytes)
        .map_err(refused("readlinkat"))
}

/// Makes a directory.
///
/// # Errors
/// As mkdirat(2).
pub fn mkdirat(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode & MODE_MASK))
        .map_err(refused("mkdirat"))
}

/// Makes a file of the kind in the format bits of `mode`.
///
/// # Errors
/// As mknodat(2).
pub fn mknodat(dir: BorrowedFd<'_>, name: &[u8], mode: u32, rdev: u64) -> Result<()> {
    let kind = FileType::from_raw_mode(mode);
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode & MODE_MASK), rdev)
        .map_err(refused("mknodat"))
}

/// Makes a symbolic link.
///
/// # Errors
/// As symlinkat(2).
pub fn symlinkat(target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::symlinkat(target, dir, name).map_err(refused("symlinkat"))
}

/// Makes a hard link; a symbolic link is not followed.
///
/// # Errors
/// As linkat(2).
pub fn linkat(
    (dir, name): (BorrowedFd<'_>, &[u8]),
    (to, to_name): (BorrowedFd<'_>, &[u8]),
) -> Result<()> {
    rustix::fs::linkat(dir, name, to, to_name, AtFlags::empty()).map_err(refused("linkat"))
}

/// Removes an entry that is not a directory.
///
/// # Errors
/// As unlinkat(2).
pub fn unlinkat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(refused("unlinkat"))
}

/// Removes an empty directory.
///
/// # Errors
/// As unlinkat(2) with `AT_REMOVEDIR`.
pub fn rmdirat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(refused("unlinkat"))
}

/// Renames an entry.
///
/// # Errors
/// As renameat2(2).
pub fn renameat2(
    (dir, name): (BorrowedFd<'_>, &[u8]),
    (to, to_name): (BorrowedFd<'_>, &[u8]),
    flags: RenameFlags,
) -> Result<()> {
    let table = [
        (flags.noreplace, RawRename::NOREPLACE),
        (flags.exchange, RawRename::EXCHANGE),
        (flags.whiteout, RawRename::WHITEOUT),
    ];
    let flags: RawRename = table.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    rustix::fs::renameat_with(dir, name, to, to_name, flags).map_err(refused("renameat2"))
}
