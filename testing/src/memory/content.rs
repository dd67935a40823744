//! The bytes of a regular file, sparse at 4 KiB, and the bytes that a power cut would leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use laminafs::error::{Errno, Error, Result};
use laminafs::types::Seek;

/// How much a power cut leaves of bytes that were written but not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing, not even the length: the file is as long as it was at its last sync.
    Empty,
    /// The length without the bytes: bytes that were not synced read as zeros.
    Holes,
}

/// Granularity of holes, as on ext4 with its usual block size.
const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Largest file, as the kernel's `MAX_LFS_FILESIZE`.
const MAX_BYTES: u64 = i64::MAX as u64;
/// Largest range that one call allocates; beyond it the tree is full.
const MAX_ALLOCATE_BYTES: u64 = 1 << 30;

const KEEP_SIZE: u32 = 0x01;
const PUNCH_HOLE: u32 = 0x02;
const ZERO_RANGE: u32 = 0x10;

type Block = Arc<[u8; BLOCK_BYTES]>;

/// Blocks that are present, and a length.
#[derive(Clone, Default)]
struct Sparse {
    len: u64,
    blocks: BTreeMap<u64, Block>,
}

/// Live bytes and those that are known to be on the disk.
#[derive(Clone, Default)]
pub(super) struct Content {
    live: Sparse,
    safe: Sparse,
}

impl Sparse {
    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let left = self.len.saturating_sub(offset);
        let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < count {
            let (index, skip) = place(offset + done as u64);
            let step = (BLOCK_BYTES - skip).min(count - done);
            let Some(out) = buf.get_mut(done..done + step) else {
                break;
            };
            match self.blocks.get(&index).and_then(|b| b.get(skip..skip + step)) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.fill(0),
            }
            done += step;
        }
        done
    }

    fn write(&mut self, mut data: &[u8], mut offset: u64) {
        while !data.is_empty() {
            let (index, skip) = place(offset);
            let step = (BLOCK_BYTES - skip).min(data.len());
            let (now, later) = data.split_at(step);
            let block = self.blocks.entry(index).or_insert_with(empty_block);
            if let Some(out) = Arc::make_mut(block).get_mut(skip..skip + step) {
                out.copy_from_slice(now);
            }
            data = later;
            offset += step as u64;
        }
        self.len = self.len.max(offset);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.clear(len, self.len);
        }
        self.len = len;
    }

    /// Makes `from..to` read as zeros: whole blocks become holes, the rest is overwritten.
    fn clear(&mut self, from: u64, to: u64) {
        let touched: Vec<u64> =
            self.blocks.range(from / BLOCK..to.div_ceil(BLOCK)).map(|(index, _)| *index).collect();
        for index in touched {
            let start = index * BLOCK;
            let begin = from.saturating_sub(start).min(BLOCK) as usize;
            // The range behind the end of the file counts as covered.
            let stop = if to >= self.len { BLOCK } else { (to - start).min(BLOCK) } as usize;
            if begin == 0 && stop == BLOCK_BYTES {
                self.blocks.remove(&index);
            } else if let Some(block) = self.blocks.get_mut(&index)
                && let Some(bytes) = Arc::make_mut(block).get_mut(begin..stop)
            {
                bytes.fill(0);
            }
        }
    }

    fn fill(&mut self, from: u64, to: u64) {
        for index in from / BLOCK..to.div_ceil(BLOCK) {
            self.blocks.entry(index).or_insert_with(empty_block);
        }
    }
}

fn place(offset: u64) -> (u64, usize) {
    (offset / BLOCK, (offset % BLOCK) as usize)
}

fn empty_block() -> Block {
    Arc::new([0; BLOCK_BYTES])
}

impl Content {
    pub(super) const fn len(&self) -> u64 {
        self.live.len
    }

    /// Allocated space in units of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        self.live.blocks.len() as u64 * (BLOCK / 512)
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.live.read(buf, offset)
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) -> Result<()> {
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= MAX_BYTES => {
                self.live.write(data, offset);
                Ok(())
            }
            _ => Err(Error::os("pwrite", Errno::FBIG)),
        }
    }

    /// A shorter length is a change of the inode and outlives a power cut; a longer one need not.
    pub(super) fn set_len(&mut self, len: u64) -> Result<()> {
        if len > MAX_BYTES {
            return Err(Error::os("ftruncate", Errno::FBIG));
        }
        self.live.set_len(len);
        if len < self.safe.len {
            self.safe.set_len(len);
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let end = match offset.checked_add(len) {
            _ if len == 0 => return Err(Error::os("fallocate", Errno::INVAL)),
            Some(end) if end <= MAX_BYTES => end,
            _ => return Err(Error::os("fallocate", Errno::FBIG)),
        };
        let punch = PUNCH_HOLE | KEEP_SIZE;
        let supported = matches!(mode & !KEEP_SIZE, 0 | ZERO_RANGE) || mode == punch;
        if !supported {
            return Err(Error::os("fallocate", Errno::OPNOTSUPP));
        }
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            self.live.clear(offset, end.min(self.live.len.max(offset)));
            self.safe.clear(offset, end.min(self.safe.len.max(offset)));
        }
        if mode & PUNCH_HOLE == 0 {
            if len > MAX_ALLOCATE_BYTES {
                return Err(Error::os("fallocate", Errno::NOSPC));
            }
            self.live.fill(offset, end);
            if mode & KEEP_SIZE == 0 {
                self.live.len = self.live.len.max(end);
            }
        }
        Ok(())
    }

    pub(super) fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        let len = self.live.len;
        if offset >= len {
            return Err(Error::os("lseek", Errno::NXIO));
        }
        let first = offset / BLOCK;
        match whence {
            Seek::Data => match self.live.blocks.range(first..).next() {
                Some((index, _)) if index * BLOCK < len => Ok(offset.max(index * BLOCK)),
                _ => Err(Error::os("lseek", Errno::NXIO)),
            },
            Seek::Hole => {
                let mut index = first;
                while self.live.blocks.contains_key(&index) {
                    index += 1;
                }
                Ok(offset.max(index * BLOCK).min(len))
            }
        }
    }

    /// Makes the live bytes durable.
    pub(super) fn sync(&mut self) {
        self.safe = self.live.clone();
    }

    /// Takes over the extents of `other`; durable only after [`Content::sync`].
    pub(super) fn share(&mut self, other: &Self) {
        self.live = other.live.clone();
    }

    /// Returns the content that the disk has after a power cut at this point.
    pub(super) fn after_power_cut(&self, loss: Loss) -> Self {
        let mut left = self.safe.clone();
        if loss == Loss::Holes {
            left.len = left.len.max(self.live.len);
        }
        Self { live: left.clone(), safe: left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content) -> Vec<u8> {
        let mut buf = vec![0xee; content.len() as usize];
        assert_eq!(content.read(&mut buf, 0), buf.len());
        buf
    }

    #[test]
    fn holes_are_found_at_block_granularity() {
        let mut content = Content::default();
        content.write(b"x", 3 * BLOCK + 5).unwrap();
        content.set_len(6 * BLOCK).unwrap();
        assert_eq!(content.seek(0, Seek::Data), Ok(3 * BLOCK));
        assert_eq!(content.seek(3 * BLOCK + 7, Seek::Data), Ok(3 * BLOCK + 7));
        assert_eq!(content.seek(3 * BLOCK, Seek::Hole), Ok(4 * BLOCK));
        assert!(content.seek(4 * BLOCK, Seek::Data).unwrap_err().is(Errno::NXIO));
        assert!(content.seek(6 * BLOCK, Seek::Hole).unwrap_err().is(Errno::NXIO));
        assert_eq!(content.sectors(), 8);
    }

    #[test]
    fn bytes_behind_a_shorter_length_do_not_come_back() {
        let mut content = Content::default();
        content.write(b"abcdef", 0).unwrap();
        content.set_len(2).unwrap();
        content.set_len(4).unwrap();
        assert_eq!(bytes(&content), b"ab\0\0");
    }

    #[test]
    fn punched_range_reads_as_zeros_and_keeps_the_size() {
        let mut content = Content::default();
        content.write(&[7; 3 * BLOCK_BYTES], 0).unwrap();
        content.allocate(PUNCH_HOLE | KEEP_SIZE, 10, 2 * BLOCK).unwrap();
        let seen = bytes(&content);
        assert_eq!(seen.iter().filter(|b| **b == 0).count() as u64, 2 * BLOCK);
        assert_eq!(seen[9], 7);
        assert_eq!(content.sectors(), 16);
    }

    #[test]
    fn power_cut_loses_unsynced_bytes() {
        let mut content = Content::default();
        content.write(b"old", 0).unwrap();
        content.sync();
        content.write(b"newer", 0).unwrap();
        assert_eq!(bytes(&content.after_power_cut(Loss::Empty)), b"old");
        assert_eq!(bytes(&content.after_power_cut(Loss::Holes)), b"old\0\0");
        content.set_len(0).unwrap();
        content.write(b"third", 0).unwrap();
        assert_eq!(bytes(&content.after_power_cut(Loss::Empty)), b"");
        assert_eq!(bytes(&content.after_power_cut(Loss::Holes)), [0; 5]);
    }
}
