//! Sparse members: the parts of a file that are in the archive, and the holes between them.

use super::number;

/// Limit of segments of one member: some 16 MiB of memory.
const SEGMENTS_MAX: usize = 1 << 20;

/// Limit of bytes of holes of one layer that are read as zeros. A header of 512 bytes can state
/// exabytes; `lastlog` with a large user number has some 300 GB and does not belong into an image.
pub(super) const HOLE_BYTES_MAX: u64 = 64 << 30;

/// Bytes of a file that are in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The offset in the file.
    pub(super) start: u64,
    /// The length.
    pub(super) len: u64,
}

/// The next part of a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A hole of this many bytes.
    Hole(u64),
    /// Data of this many bytes from the archive.
    Data(u64),
    /// The end of the file.
    End,
}

/// A sparse file and the position in it.
#[derive(Debug)]
pub(super) struct Sparse {
    segments: std::iter::Peekable<std::vec::IntoIter<Segment>>,
    holes: u64,
    at: u64,
    size: u64,
}

impl Sparse {
    /// Checks a map: it must ascend, not overlap, lie inside the file and match the length of the
    /// data.
    pub(super) fn new(map: Vec<Segment>, size: u64, stored: u64) -> Result<Self, &'static str> {
        let (mut end, mut sum) = (0, 0u64);
        for segment in &map {
            if segment.start < end {
                return Err("the map of a sparse file is not in order");
            }
            end = segment
                .start
                .checked_add(segment.len)
                .filter(|end| *end <= size)
                .ok_or("the map of a sparse file leaves the file")?;
            sum += segment.len;
        }
        if sum != stored {
            return Err("the map of a sparse file contradicts the length of its data");
        }
        Ok(Self { segments: map.into_iter().peekable(), holes: size - sum, at: 0, size })
    }

    /// The size of the file.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The number of bytes in holes.
    pub(super) const fn holes(&self) -> u64 {
        self.holes
    }

    /// The next part.
    pub(super) fn next(&mut self) -> Next {
        loop {
            let Some(segment) = self.segments.peek() else {
                let rest = self.size - self.at;
                return if rest == 0 { Next::End } else { Next::Hole(rest) };
            };
            if self.at < segment.start {
                return Next::Hole(segment.start - self.at);
            }
            match (segment.start + segment.len).saturating_sub(self.at) {
                0 => self.segments.next(),
                rest => return Next::Data(rest),
            };
        }
    }

    /// Advances by at most the length that [`Sparse::next`] returned.
    pub(super) fn advance(&mut self, by: u64) {
        self.at = self.at.saturating_add(by).min(self.size);
    }
}

/// Adds the pairs of an old GNU header; an empty field ends them.
pub(super) fn add_pairs<'a>(
    map: &mut Vec<Segment>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), &'static str> {
    for (start, len) in pairs {
        if len.first().is_none_or(|byte| *byte == 0) {
            break;
        }
        let [start, len] = [start, len].map(number::field);
        let positive = |value| u64::try_from(value).map_err(|_| "a sparse map is negative");
        push(map, Segment { start: positive(start?)?, len: positive(len?)? })?;
    }
    Ok(())
}

/// Adds a segment, within the limit.
pub(super) fn push(map: &mut Vec<Segment>, segment: Segment) -> Result<(), &'static str> {
    if map.len() >= SEGMENTS_MAX {
        return Err("the map of a sparse file has more than 1048576 segments");
    }
    map.push(segment);
    Ok(())
}

/// Parses the map of format 1.0: the number of segments, then their starts and lengths, one decimal
/// number per line.
#[derive(Default)]
pub(super) struct MapReader {
    line: Vec<u8>,
    count: Option<u64>,
    start: Option<u64>,
    map: Vec<Segment>,
}

impl MapReader {
    /// Parses one block. Returns true if the map ends in it.
    pub(super) fn take(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                // The longest u64 has this many digits.
                if self.line.len() == 20 {
                    return Err("the map of a sparse file is malformed");
                }
                self.line.push(*byte);
                continue;
            }
            let value = number::decimal(&self.line)?;
            self.line.clear();
            if self.take_number(value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_number(&mut self, value: u64) -> Result<bool, &'static str> {
        let Some(count) = self.count else {
            self.count = Some(value);
            return Ok(value == 0);
        };
        match self.start.take() {
            None => self.start = Some(value),
            Some(start) => push(&mut self.map, Segment { start, len: value })?,
        }
        Ok(self.start.is_none() && self.map.len() as u64 == count)
    }

    /// The segments.
    pub(super) fn finish(self) -> Vec<Segment> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, len: u64) -> Segment {
        Segment { start, len }
    }

    #[test]
    fn holes_and_data_alternate() {
        let map = vec![segment(2, 3), segment(5, 1), segment(9, 0)];
        let mut sparse = Sparse::new(map, 9, 4).unwrap();
        let mut seen = Vec::new();
        loop {
            match sparse.next() {
                Next::End => break,
                Next::Hole(len) => {
                    seen.push((false, len));
                    sparse.advance(len);
                }
                Next::Data(len) => {
                    seen.push((true, len));
                    sparse.advance(len);
                }
            }
        }
        assert_eq!(seen, [(false, 2), (true, 3), (true, 1), (false, 3)]);
        assert_eq!(sparse.holes(), 5);
    }

    #[test]
    fn a_map_of_lines_may_span_blocks() {
        let mut reader = MapReader::default();
        assert_eq!(reader.take(b"2\n0\n5\n1"), Ok(false));
        assert_eq!(reader.take(b"0\n3\n\0\0\0"), Ok(true));
        assert_eq!(reader.finish(), [segment(0, 5), segment(10, 3)]);
        assert_eq!(MapReader::default().take(b"0\n"), Ok(true));
        assert!(MapReader::default().take(b"-1\n").is_err());
        assert!(MapReader::default().take(&[b'1'; 512]).is_err());
    }

    #[test]
    fn maps_that_lie_are_refused() {
        assert!(Sparse::new(vec![segment(5, 1), segment(2, 1)], 9, 2).is_err());
        assert!(Sparse::new(vec![segment(0, 3), segment(2, 1)], 9, 4).is_err());
        assert!(Sparse::new(vec![segment(8, 2)], 9, 2).is_err());
        assert!(Sparse::new(vec![segment(u64::MAX, 2)], u64::MAX, 2).is_err());
        assert!(Sparse::new(vec![segment(0, 2)], 9, 3).is_err());
    }
}
