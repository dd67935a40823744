//! Cutting of streams at places that depend on their content (FastCDC), so that an insertion
//! changes the chunks around it alone.

use fastcdc::v2020::{FastCDC, Normalization};

/// The longest chunk.
pub(super) const CHUNK_MAX: usize = 4 << 20;

/// The shortest, the usual and the longest chunk of a stream, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) min: u32,
    pub(super) usual: u32,
    pub(super) max: u32,
}

/// Data of files.
pub(super) const DATA: Sizes = Sizes { min: 256 << 10, usual: 1 << 20, max: CHUNK_MAX as u32 };
/// The list of objects: short chunks, since a few changed entries are usual.
pub(super) const TREE: Sizes = Sizes { min: 32 << 10, usual: 128 << 10, max: 1 << 20 };

/// Cuts a stream.
pub(super) struct Chunker {
    buffer: Vec<u8>,
    sizes: Sizes,
    seed: u64,
}

impl Chunker {
    pub(super) const fn new(sizes: Sizes, seed: u64) -> Self {
        Self { buffer: Vec::new(), sizes, seed }
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole chunk, if the stream is long enough to know its end.
    pub(super) fn cut(&mut self) -> Option<Vec<u8>> {
        (self.buffer.len() >= self.sizes.max as usize).then(|| self.take())
    }

    /// The next chunk at the end of the stream.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.buffer.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        let Sizes { min, usual, max } = self.sizes;
        let level = Normalization::Level1;
        let cutter = FastCDC::with_level_and_seed(&self.buffer, min, usual, max, level, self.seed);
        let (_, end) = cutter.cut(0, self.buffer.len());
        let rest = self.buffer.split_off(end.clamp(1, self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(bytes: &[u8], seed: u64) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(TREE, seed);
        let mut all = Vec::new();
        for part in bytes.chunks(70_000) {
            chunker.push(part);
            all.extend(std::iter::from_fn(|| chunker.cut()));
        }
        all.extend(std::iter::from_fn(|| chunker.rest()));
        all
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let mut bytes: Vec<u8> = (0..8 << 20).map(|_| random()).collect();
        let before = chunks(&bytes, 5);
        assert_eq!(before.concat(), bytes);
        bytes.splice(3 << 20..3 << 20, b"inserted".iter().copied());
        let after = chunks(&bytes, 5);
        assert_eq!(after.concat(), bytes);
        let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!((1..=3).contains(&new), "{new} of {}", after.len());
        assert_ne!(chunks(&bytes, 6), after, "the places depend on the key");
    }
}
