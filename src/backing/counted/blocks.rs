//! Sets of blocks of a file.

use std::collections::BTreeMap;
use std::ops::Range;

/// The unit in which data is counted, in bytes.
pub const BLOCK: u64 = 4096;

/// The blocks that a range of bytes touches.
#[must_use]
pub const fn touched(offset: u64, len: u64) -> Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / BLOCK..offset.saturating_add(len).div_ceil(BLOCK)
}

/// A set of blocks, as ranges that do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    ends: BTreeMap<u64, u64>,
    count: u64,
}

impl Blocks {
    /// The number of blocks.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The number of ranges.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ends.len()
    }

    /// The parts of a range that are not in the set, in order.
    #[must_use]
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let before = self.ends.range(..=range.start).next_back();
        if let Some((_, end)) = before {
            at = at.max(*end);
        }
        for (start, end) in self.ends.range(range.start..range.end) {
            if at < *start {
                gaps.push(at..*start);
            }
            at = at.max(*end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Adds a range.
    pub fn insert(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut new = range.clone();
        if let Some((start, end)) = self.ends.range(..=range.start).next_back()
            && *end >= range.start
        {
            new = *start..new.end.max(*end);
        }
        while let Some((start, end)) = self.ends.range(new.start..=new.end).next() {
            let (start, end) = (*start, *end);
            self.ends.remove(&start);
            self.count -= end - start;
            new.end = new.end.max(end);
        }
        self.count += new.end - new.start;
        self.ends.insert(new.start, new.end);
    }

    /// Removes a range.
    pub fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before = self.ends.range(..range.start).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before.filter(|(_, end)| *end > range.start) {
            self.ends.insert(start, range.start);
            self.count -= end.min(range.end) - range.start;
            if end > range.end {
                self.ends.insert(range.end, end);
            }
        }
        while let Some((start, end)) = self.ends.range(range.clone()).next() {
            let (start, end) = (*start, *end);
            self.ends.remove(&start);
            self.count -= end.min(range.end) - start;
            if end > range.end {
                self.ends.insert(range.end, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_equals_a_set_of_blocks(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..60, 0_u64..20), 1..60),
            asked in (0_u64..60, 0_u64..30),
        ) {
            let (mut set, mut plain) = (Blocks::default(), BTreeSet::new());
            for (adds, start, len) in steps {
                let range = start..start + len;
                if adds {
                    set.insert(&range);
                    plain.extend(range);
                } else {
                    set.remove(&range);
                    plain.retain(|block| !range.contains(block));
                }
                prop_assert_eq!(set.count(), plain.len() as u64);
            }
            let range = asked.0..asked.0 + asked.1;
            let gaps: Vec<u64> = set.gaps(&range).into_iter().flatten().collect();
            let missing: Vec<u64> = range.filter(|block| !plain.contains(block)).collect();
            prop_assert_eq!(gaps, missing);
        }
    }

    #[test]
    fn a_range_of_bytes_touches_whole_blocks() {
        assert_eq!(touched(0, 0), 0..0);
        assert_eq!(touched(4095, 2), 0..2);
        assert_eq!(touched(4096, 4096), 1..2);
        assert_eq!(touched(u64::MAX - 1, 9), u64::MAX / BLOCK..u64::MAX.div_ceil(BLOCK));
    }
}
