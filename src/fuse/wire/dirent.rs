//! Packs the replies to READDIR and READDIRPLUS.
//!
//! READDIRPLUS may carry a name alone: `fuse_direntplus_link()` in the kernel's `fs/fuse/readdir.c`
//! passes such an entry (node 0) to the reader and caches nothing of it.

use zerocopy::{FromBytes, IntoBytes};

use crate::fuse::wire::abi::{Dirent, EntryOut};
use crate::types::Kind;

/// A listing under construction in a borrowed buffer, which keeps its capacity.
#[derive(Debug)]
pub struct DirentBuffer<'a> {
    bytes: &'a mut Vec<u8>,
    limit: usize,
    plus: bool,
}

/// The space of one entry.
const fn record(plus: bool, name_len: usize) -> usize {
    let head = if plus { size_of::<EntryOut>() } else { 0 };
    head + (size_of::<Dirent>() + name_len).next_multiple_of(8)
}

impl<'a> DirentBuffer<'a> {
    /// An empty listing of at most `limit` bytes; with `plus` in the form of READDIRPLUS.
    pub fn new(bytes: &'a mut Vec<u8>, limit: usize, plus: bool) -> Self {
        bytes.clear();
        Self { bytes, limit, plus }
    }

    /// Whether one more entry with a name of this length fits.
    #[must_use]
    pub fn has_room(&self, name_len: usize) -> bool {
        self.bytes.len().saturating_add(record(self.plus, name_len)) <= self.limit
    }

    /// Adds an entry; `next` is the position to resume behind it. `entry` is used in the form of
    /// READDIRPLUS only. Returns false, and adds nothing, if the entry does not fit.
    pub fn push(&mut self, name: &[u8], ino: u64, kind: Kind, next: u64, entry: EntryOut) -> bool {
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        if !self.has_room(name.len()) {
            return false;
        }
        let end = self.bytes.len() + record(self.plus, name.len());
        if self.plus {
            self.bytes.extend_from_slice(entry.as_bytes());
        }
        let head = Dirent { ino, off: next, namelen, kind: kind as u32 };
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    /// The packed listing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The nodes that a READDIRPLUS listing names, once each.
    pub fn nodes(&self) -> impl Iterator<Item = u64> + '_ {
        let mut rest = if self.plus { self.bytes.as_slice() } else { &[] };
        std::iter::from_fn(move || {
            let (entry, behind) = EntryOut::read_from_prefix(rest).ok()?;
            let (head, _) = Dirent::read_from_prefix(behind).ok()?;
            rest = rest.get(record(true, usize::try_from(head.namelen).ok()?)..)?;
            Some(entry.nodeid)
        })
        .filter(|&node| node != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_entries_are_padded_to_eight_bytes() {
        let mut bytes = Vec::new();
        let mut list = DirentBuffer::new(&mut bytes, 64, false);
        assert!(list.push(b"abc", 42, Kind::File, 7, EntryOut::default()));
        assert_eq!(list.bytes().len(), 32);
        let (head, rest) = Dirent::read_from_prefix(list.bytes()).unwrap();
        assert_eq!((head.ino, head.off, head.namelen, head.kind), (42, 7, 3, 8));
        assert_eq!(rest, b"abc\0\0\0\0\0");
    }

    #[test]
    fn an_entry_that_does_not_fit_leaves_the_listing_as_it_is() {
        let mut bytes = Vec::new();
        let mut list = DirentBuffer::new(&mut bytes, 63, false);
        assert!(list.push(b"12345678", 1, Kind::Dir, 1, EntryOut::default()));
        assert!(!list.has_room(8));
        assert!(!list.push(b"12345678", 1, Kind::Dir, 2, EntryOut::default()));
        assert_eq!(list.bytes().len(), 32);
    }

    #[test]
    fn nodes_names_only_what_the_kernel_counts() {
        let mut bytes = Vec::new();
        let mut list = DirentBuffer::new(&mut bytes, 4096, true);
        for (name, nodeid) in [(&b"."[..], 0), (b"a-longer-name", 9), (b"x", 0), (b"y", 11)] {
            let entry = EntryOut { nodeid, ..Default::default() };
            assert!(list.push(name, 1, Kind::File, 1, entry));
        }
        assert_eq!(list.bytes().len() % 8, 0);
        assert_eq!(list.nodes().collect::<Vec<_>>(), [9, 11]);
    }
}
