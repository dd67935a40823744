//! Positions in a listing, as the kernel keeps them and telldir(3) shows them.
//!
//! | position | meaning |
//! | --- | --- |
//! | 0, 1, 2 | the start, behind `.`, behind `..` |
//! | `LOWER` + n | behind the n-th entry of the lower parts, hidden ones counted |
//! | others | of the file system of the upper (or of the only part), moved by two |
//!
//! Lower parts never change, so a count always means the same place in them. The range from `LOWER`
//! on is free in ext4, whose positions are hashes: the last 2^32 of them belong to no entry
//! (`ext4fs_dirhash()`, `EXT4_HTREE_EOF_64BIT`). Other file systems count from 0. If an upper uses
//! the range all the same, as a mount of this program does, its positions are moved to the second
//! half of the range.

use crate::error::{Errno, Result};

/// Positions of a single directory are moved by two, so that none is mistaken for that behind `.`
/// or `..`. The last ones are not moved: ext4 puts only the end there, and no entry.
const LAST: u64 = i64::MAX as u64 - 2;
/// The first position in lower parts.
const LOWER: u64 = 0x7fff_ffff_0000_0000;
/// The largest number of entries in the lower parts of one directory.
const LOWER_LEN: u64 = 1 << 31;
const MOVED: u64 = LOWER + LOWER_LEN;

/// The place where a listing continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind this many entries of the lower parts.
    Lower(u64),
    /// At a position of the upper part.
    Upper(u64),
}

/// Returns the position shown for a position of the only part.
pub(super) const fn shown(position: u64) -> u64 {
    if position < LAST { position + 2 } else { position }
}

/// The inverse of [`shown`].
pub(super) const fn backing(position: u64) -> u64 {
    if position < LAST { position.saturating_sub(2) } else { position }
}

/// Returns the position shown behind `count` entries of the lower parts.
///
/// # Errors
/// `EOVERFLOW` for more than 2^31 entries.
pub(super) fn shown_lower(count: u64) -> Result<u64> {
    if count < LOWER_LEN { Ok(LOWER + count) } else { Err(Errno::OVERFLOW.into()) }
}

/// Returns the position shown for a position of an upper.
///
/// # Errors
/// `EOVERFLOW` for a position that does not fit.
pub(super) fn shown_upper(position: u64) -> Result<u64> {
    match shown(position) {
        // The last few positions would be mistaken for the end.
        shown @ LOWER..LAST if shown < MOVED - 8 => Ok(shown + LOWER_LEN),
        LOWER..LAST => Err(Errno::OVERFLOW.into()),
        shown => Ok(shown),
    }
}

/// Returns the place of a shown position, in a directory with an upper.
pub(super) const fn place(position: u64) -> Place {
    match position {
        0..=2 => Place::Lower(0),
        LOWER..MOVED => Place::Lower(position - LOWER),
        MOVED..LAST => Place::Upper(backing(position - LOWER_LEN)),
        _ => Place::Upper(backing(position)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_an_upper_come_back() {
        let ext4_last = 0x7fff_fffe_ffff_ffff;
        let high = [ext4_last, LOWER, LOWER + 5, MOVED - 11, LAST, LAST + 2];
        for position in [1, 2, 3, 77, 1 << 40].into_iter().chain(high) {
            let shown = shown_upper(position).unwrap();
            assert_eq!(place(shown), Place::Upper(position), "{position:x} as {shown:x}");
            assert!(i64::try_from(shown).is_ok());
        }
    }

    #[test]
    fn positions_of_lower_parts_are_no_others() {
        for count in [0, 1, 500_000, LOWER_LEN - 1] {
            assert_eq!(place(shown_lower(count).unwrap()), Place::Lower(count));
        }
        assert!(shown_lower(LOWER_LEN).unwrap_err().is(Errno::OVERFLOW));
        assert!(shown_upper(MOVED).unwrap_err().is(Errno::OVERFLOW));
        assert_eq!(place(2), Place::Lower(0));
    }
}
