//! The blocks of a snapshot of a block device: those with data, or those that differ from an
//! earlier snapshot.
//!
//! Both files never change. Where both have the same place of the device as a shared extent, their
//! data is equal there, and none of it is read. Everything else is compared, so that a block that
//! was written with the data that it had is not reported. The file system may move extents at any
//! time (a balance of Btrfs): the places of one file are read again after those of the other, and
//! count only if they are as before.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::device::{IMAGE, open_directory};
use super::options::BLOCK_BYTES;
use crate::error::{Errno, Error, FromHost};
use crate::sys;
use crate::sys::extents::{Extent, Extents, extents};
use crate::sys::file::OFlags;
use crate::types::Seek;
use crate::volume::driver::Place;
use crate::volume::error::{Result, VolumeError};

/// Bytes that are compared at once.
const STEP_BYTES: u64 = 1 << 20;

/// Receives ranges of bytes in ascending order, which do not touch each other and are whole blocks;
/// returns whether it takes more.
pub type OnRange<'a> = dyn FnMut(Range<u64>) -> bool + 'a;

/// The blocks of a snapshot of a block device.
#[derive(Debug)]
pub struct Blocks {
    path: PathBuf,
    of: OwnedFd,
    base: Option<OwnedFd>,
    size: u64,
}

impl Blocks {
    pub(super) fn open(place: &Place, base: Option<&Place>) -> Result<Self> {
        let (path, of) = open_image(place)?;
        let base = base.map(open_image).transpose()?.map(|(_, fd)| fd);
        let size = sys::file::statx(of.as_fd(), b"").map_err(VolumeError::host(&path))?.size;
        Ok(Self { path, of, base, size })
    }

    /// The size of the snapshot in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reports the ranges from the block with the byte `from` on: those with data, or those that
    /// differ from the earlier snapshot. None that differs is left out. Memory is bounded.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn each(&self, from: u64, on: &mut OnRange<'_>) -> Result<()> {
        let from = from.min(self.size);
        let done = from - from % BLOCK_BYTES;
        let mut ranges = Ranges { on, pending: None, done, size: self.size };
        let reported = match &self.base {
            None => with_data(self.of.as_fd(), &mut ranges),
            Some(base) => Pair { of: self.of.as_fd(), base: base.as_fd() }.differing(&mut ranges),
        };
        if reported.map_err(VolumeError::host(&self.path))? {
            ranges.end();
        }
        Ok(())
    }
}

fn open_image(place: &Place) -> Result<(PathBuf, OwnedFd)> {
    let directory = open_directory(place)?;
    let path = place.directory().join(IMAGE);
    let fd = sys::file::openat(directory.as_fd(), IMAGE.as_bytes(), OFlags::RDONLY);
    let fd = fd.map_err(VolumeError::host(&path))?;
    Ok((path, fd))
}

/// Makes ranges whole blocks and joins them. `done` is where the next one may begin.
struct Ranges<'a, 'b> {
    on: &'a mut OnRange<'b>,
    pending: Option<Range<u64>>,
    done: u64,
    size: u64,
}

impl Ranges<'_, '_> {
    /// Adds a range behind the others, which it may overlap; returns whether more are taken.
    fn add(&mut self, start: u64, end: u64) -> bool {
        let start = (start - start % BLOCK_BYTES).max(self.done);
        let end =
            end.checked_next_multiple_of(BLOCK_BYTES).map_or(self.size, |end| end.min(self.size));
        if start >= end {
            return true;
        }
        self.done = end;
        match &mut self.pending {
            Some(pending) if pending.end == start => pending.end = end,
            pending => {
                if let Some(before) = pending.replace(start..end) {
                    return (self.on)(before);
                }
            }
        }
        true
    }

    fn end(mut self) {
        if let Some(last) = self.pending.take() {
            (self.on)(last);
        }
    }
}

type Found<T> = std::result::Result<T, Error>;

/// Where the next data is; `None` if the rest is a hole.
fn next_data(fd: BorrowedFd<'_>, at: u64) -> Found<Option<u64>> {
    match sys::file::seek_extent(fd, at, Seek::Data) {
        Err(error) if error.is(Errno::NXIO) => Ok(None),
        found => found.map(Some),
    }
}

/// Reports the parts of a file that are not holes; returns whether all were taken.
fn with_data(fd: BorrowedFd<'_>, ranges: &mut Ranges<'_, '_>) -> Found<bool> {
    let mut at = ranges.done;
    while at < ranges.size {
        let Some(data) = next_data(fd, at)? else { break };
        let end = match sys::file::seek_extent(fd, data, Seek::Hole) {
            Err(error) if error.is(Errno::NXIO) => break,
            found => found?,
        };
        if !ranges.add(data, end) {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// Two files that do not change.
#[derive(Clone, Copy)]
struct Pair<'a> {
    of: BorrowedFd<'a>,
    base: BorrowedFd<'a>,
}

impl Pair<'_> {
    /// Reports where the files differ; returns whether all was taken.
    fn differing(self, ranges: &mut Ranges<'_, '_>) -> Found<bool> {
        let mut buffers = (Vec::new(), Vec::new());
        let (mut at, size) = (ranges.done, ranges.size);
        let mut has_places = self.is_one_file_system()?;
        while at < size {
            let places = if has_places { self.places(at, size)? } else { None };
            has_places = places.is_some();
            let (parts, end) = places.unwrap_or_else(|| (only(at..size), size));
            for part in parts {
                if !self.compare(part, ranges, &mut buffers)? {
                    return Ok(false);
                }
            }
            at = end;
        }
        Ok(true)
    }

    fn is_one_file_system(self) -> Found<bool> {
        let dev = |fd| sys::file::statx(fd, b"").map(|stat| stat.dev);
        Ok(dev(self.of)? == dev(self.base)?)
    }

    /// The parts from `at` on that are not at one place in both files, and where they end; `None`
    /// if the file system does not tell.
    fn places(self, at: u64, size: u64) -> Found<Option<(Vec<Range<u64>>, u64)>> {
        let read = || -> Found<_> {
            let of = extents(self.of, at, size)?;
            Ok((of, extents(self.base, at, size)?, extents(self.of, at, size)?))
        };
        let (of, base, again) = match read() {
            Err(error) => {
                let unknown = [Errno::OPNOTSUPP, Errno::NOTTY, Errno::INVAL];
                return if unknown.contains(&error.errno()) { Ok(None) } else { Err(error) };
            }
            Ok(read) => read,
        };
        let end = of.end.min(base.end);
        let parts = if of == again { apart(&of, &base, at..end) } else { only(at..end) };
        Ok(Some((parts, end)))
    }

    /// Reports the blocks of a part whose data differs; returns whether all was taken.
    fn compare(
        self,
        part: Range<u64>,
        ranges: &mut Ranges<'_, '_>,
        (ours, theirs): &mut (Vec<u8>, Vec<u8>),
    ) -> Found<bool> {
        let mut at = part.start - part.start % BLOCK_BYTES;
        let end = part.end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(part.end);
        while at < end {
            let data = (next_data(self.of, at)?, next_data(self.base, at)?);
            let next = match data {
                (Some(one), Some(other)) => one.min(other),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            at = at.max(next - next % BLOCK_BYTES);
            if at >= end {
                break;
            }
            let len = (end - at).min(STEP_BYTES);
            read_all(self.of, at, len, ours)?;
            read_all(self.base, at, len, theirs)?;
            let blocks = ours.chunks(BLOCK_BYTES as usize).zip(theirs.chunks(BLOCK_BYTES as usize));
            for (place, (one, other)) in (at..).step_by(BLOCK_BYTES as usize).zip(blocks) {
                if one != other && !ranges.add(place, place + BLOCK_BYTES) {
                    return Ok(false);
                }
            }
            at += len;
        }
        Ok(true)
    }
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// Reads a part of a file; what is behind its end is zeros.
fn read_all(fd: BorrowedFd<'_>, at: u64, len: u64, to: &mut Vec<u8>) -> Found<()> {
    to.clear();
    to.resize(usize::try_from(len).unwrap_or(0), 0);
    let mut done = 0;
    while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match sys::file::pread(fd, rest, at + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(())
}

/// The parts of a range that are neither a hole in both files nor one shared place.
fn apart(one: &Extents, other: &Extents, range: Range<u64>) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (ours, theirs) = (Piece::at(&one.extents, at), Piece::at(&other.extents, at));
        let end = ours.end.min(theirs.end).min(range.end);
        let is_equal = match (ours.place, theirs.place) {
            (None, None) => true,
            (Some((one, true)), Some((other, true))) => one == other,
            _ => false,
        };
        match parts.last_mut() {
            _ if is_equal => {}
            Some(last) if last.end == at => last.end = end,
            _ => parts.push(at..end),
        }
        at = end;
    }
    parts
}

/// What a file has from a byte on: a place on the device and whether that is shared, or a hole.
struct Piece {
    place: Option<(u64, bool)>,
    end: u64,
}

impl Piece {
    fn at(extents: &[Extent], at: u64) -> Self {
        let next = extents.get(extents.partition_point(|extent| extent.end() <= at)..);
        match next.and_then(<[Extent]>::first) {
            None => Self { place: None, end: u64::MAX },
            Some(next) if next.logical > at => Self { place: None, end: next.logical },
            Some(next) => {
                let physical = next.physical.saturating_add(at - next.logical);
                Self { place: Some((physical, next.is_shared)), end: next.end() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const SIZE: u64 = 4 << 20;

    fn extent(logical: u64, physical: u64, len: u64) -> Extent {
        Extent { logical, physical, len, is_shared: true }
    }

    fn all(extents: Vec<Extent>) -> Extents {
        Extents { extents, end: 100 }
    }

    #[test]
    fn one_shared_place_is_equal_and_all_else_is_not() {
        let one = all(vec![extent(10, 1000, 20), extent(40, 2000, 10), extent(70, 3000, 10)]);
        let other = all(vec![extent(10, 1000, 10), extent(20, 1010, 40), extent(75, 3005, 5)]);
        // 30..40 is a hole in the one, 40..50 elsewhere, 50..60 a hole, 70..75 a hole in the other.
        assert_eq!(apart(&one, &other, 0..100), [30..60, 70..75]);
        assert_eq!(apart(&one, &one, 0..100), []);
        let mut own = one.clone();
        own.extents[1].is_shared = false;
        assert_eq!(apart(&one, &own, 0..100), only(40..50));
        assert_eq!(apart(&own, &own, 45..100), only(45..50));
    }

    #[test]
    fn ranges_are_whole_blocks_that_are_joined() {
        let mut found = Vec::new();
        let mut on = |range: Range<u64>| {
            found.push(range);
            true
        };
        let mut ranges = Ranges { on: &mut on, pending: None, done: 4096, size: 40_960 };
        for (start, end) in
            [(0, 5000), (8000, 8001), (9000, 12_288), (12_288, 12_289), (30_000, 99_999)]
        {
            assert!(ranges.add(start, end));
        }
        ranges.end();
        assert_eq!(found, [4096..16_384, 28_672..40_960]);
    }

    fn file(writes: &[(u64, u8, usize)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        for (at, byte, len) in writes {
            file.write_all_at(&vec![*byte; *len], *at).unwrap();
        }
        file
    }

    fn blocks(of: File, base: Option<File>) -> Blocks {
        let size = of.metadata().unwrap().len();
        Blocks { path: PathBuf::from("x"), of: of.into(), base: base.map(Into::into), size }
    }

    fn each(blocks: &Blocks, from: u64) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        blocks
            .each(from, &mut |range| {
                found.push(range);
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn changes_are_the_blocks_whose_data_differs() {
        let base = [(0, 1, 4096), (65_536, 2, 8192), (1 << 20, 3, 4096), (3 << 20, 0, 4096)];
        let of = [(0, 1, 4096), (65_536, 2, 4096), (69_632, 7, 1), (2 << 20, 9, 5000)];
        let pair = blocks(file(&of), Some(file(&base)));
        let expected = [65_536 + 4096..65_536 + 8192, 1 << 20..(1 << 20) + 4096];
        let last = 2 << 20..(2 << 20) + 8192;
        assert_eq!(each(&pair, 0), [&expected[..], &only(last.clone())].concat());
        assert_eq!(each(&pair, 1 << 20), [expected[1].clone(), last.clone()]);
        assert_eq!(each(&pair, (2 << 20) + 4097), only((2 << 20) + 4096..(2 << 20) + 8192));
        assert_eq!(each(&pair, SIZE + 1), []);
        let mut first = Vec::new();
        pair.each(0, &mut |range| {
            first.push(range);
            false
        })
        .unwrap();
        assert_eq!(first, expected[..1]);
    }

    #[test]
    fn a_base_of_another_size_counts_as_zeros_behind_its_end() {
        let base = file(&[(0, 1, 4096)]);
        base.set_len(4096).unwrap();
        let pair = blocks(file(&[(0, 1, 4096), (8192, 5, 1)]), Some(base));
        assert_eq!(each(&pair, 0), only(8192..12_288));
    }

    #[test]
    fn data_is_reported_and_holes_are_not() {
        let found = each(&blocks(file(&[(0, 1, 1), (1 << 20, 2, 4097)]), None), 0);
        let holds = |at: u64| found.iter().any(|range| range.contains(&at));
        assert!(holds(0) && holds(1 << 20) && holds((1 << 20) + 4096), "{found:?}");
        assert!(found.iter().all(|range| range.start % 4096 == 0 && range.end % 4096 == 0));
        assert!(found.iter().map(|range| range.end - range.start).sum::<u64>() < SIZE / 2);
    }
}
