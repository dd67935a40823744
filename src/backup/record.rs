//! The list of the objects of a tree: a stream of records, cut into chunks like data.
//!
//! A record is its length (u32), a tag and a body; numbers are little-endian. An *entry* is an
//! object with its attributes; *pieces* after a file say which parts of which chunks its data is;
//! the *end* counts the entries. Entries are in the order of a walk.

use std::collections::VecDeque;

use super::error::{BackupError, Result};
use super::seal::Id;
use crate::tree::{Meta, Xattrs};
use crate::types::{Kind, Time};

const ENTRY: u8 = 1;
const PIECES: u8 = 2;
const END: u8 = 3;
/// The longest record: an entry with many extended attributes.
const RECORD_MAX: usize = 32 << 20;
/// Pieces in one record.
pub(super) const PIECES_MAX: usize = 1024;
const PIECE_BYTES: usize = 48;

/// An object of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    pub(super) ctime: Time,
    pub(super) ino: u64,
    pub(super) device: (u32, u32),
    pub(super) size: u64,
    /// The target of a symbolic link.
    pub(super) target: Vec<u8>,
    /// For a further name of an object, the first one.
    pub(super) link: Option<Vec<u8>>,
}

/// A part of the data of a file. What no piece covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The offset in the file.
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) id: Id,
    /// The offset in the chunk.
    pub(super) from: u32,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Entry(Box<Entry>),
    Pieces(Vec<Piece>),
    End(u64),
}

impl Record {
    /// The bytes of a record.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Out(vec![0; 4]);
        match self {
            Self::Entry(entry) => out.entry(entry)?,
            Self::Pieces(pieces) => {
                out.0.push(PIECES);
                for piece in pieces {
                    out.u64(piece.at);
                    out.u32(piece.len);
                    out.0.extend(piece.id.0);
                    out.u32(piece.from);
                }
            }
            Self::End(entries) => {
                out.0.push(END);
                out.u64(*entries);
            }
        }
        let len = out.0.len() - 4;
        if len > RECORD_MAX {
            let what = format!("an entry of {len} bytes: {RECORD_MAX} is the limit");
            return Err(BackupError::TooLarge { what });
        }
        let bytes = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        out.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Ok(out.0)
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut from = In(body);
        let record = match from.u8()? {
            ENTRY => Self::Entry(Box::new(from.entry()?)),
            PIECES => {
                let mut pieces = Vec::with_capacity(from.0.len() / PIECE_BYTES);
                while !from.0.is_empty() {
                    let (at, len) = (from.u64()?, from.u32()?);
                    let id = Id(*from.take(32)?.first_chunk::<32>()?);
                    pieces.push(Piece { at, len, id, from: from.u32()? });
                }
                Self::Pieces(pieces)
            }
            END => Self::End(from.u64()?),
            _ => return None,
        };
        from.0.is_empty().then_some(record)
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn time(&mut self, time: Time) {
        self.0.extend(time.secs.to_le_bytes());
        self.u32(time.nanos);
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let large = |_| BackupError::TooLarge { what: "a name of more than 4 GiB".to_owned() };
        self.u32(u32::try_from(bytes.len()).map_err(large)?);
        self.0.extend(bytes);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.0.extend([ENTRY, entry.kind as u8]);
        let meta = &entry.meta;
        [meta.mode, meta.uid, meta.gid].into_iter().for_each(|value| self.u32(value));
        self.time(meta.mtime);
        self.time(meta.atime.unwrap_or_default());
        self.time(entry.ctime);
        self.u64(entry.ino);
        self.u32(entry.device.0);
        self.u32(entry.device.1);
        self.u64(entry.size);
        self.bytes(&entry.path)?;
        self.bytes(&entry.target)?;
        self.0.push(u8::from(entry.link.is_some()));
        self.bytes(entry.link.as_deref().unwrap_or_default())?;
        for (key, value) in &meta.xattrs {
            self.bytes(key)?;
            self.bytes(value)?;
        }
        Ok(())
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn time(&mut self) -> Option<Time> {
        let secs = i64::from_le_bytes(*self.take(8)?.first_chunk()?);
        let nanos = self.u32().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Time { secs, nanos })
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.u32()?).ok()?;
        Some(self.take(len)?.to_vec())
    }

    fn entry(&mut self) -> Option<Entry> {
        let kind = Kind::from_dtype(self.u8()?);
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let (mtime, atime, ctime) = (self.time()?, Some(self.time()?), self.time()?);
        let ino = self.u64()?;
        let device = (self.u32()?, self.u32()?);
        let size = self.u64()?;
        let (path, target) = (self.bytes()?, self.bytes()?);
        let (is_link, first) = (self.u8()?, self.bytes()?);
        let mut xattrs = Xattrs::new();
        while !self.0.is_empty() {
            xattrs.insert(self.bytes()?, self.bytes()?);
        }
        let meta = Meta { mode, uid, gid, mtime, atime, xattrs };
        let link = (is_link == 1).then_some(first);
        Some(Entry { path, kind, meta, ctime, ino, device, size, target, link })
    }
}

/// Reads records from the chunks of a stream.
pub(super) struct Records<F> {
    ids: VecDeque<Id>,
    fetch: F,
    buffer: Vec<u8>,
    at: usize,
    entries: u64,
    ended: bool,
}

impl<F: FnMut(Id) -> Result<Vec<u8>>> Records<F> {
    pub(super) fn new(ids: Vec<Id>, fetch: F) -> Self {
        let (buffer, ids) = (Vec::new(), ids.into());
        Self { ids, fetch, buffer, at: 0, entries: 0, ended: false }
    }

    /// The next entry or pieces; `None` at the end of the list.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        let bad = |what: &str| BackupError::Damaged {
            object: "the list of objects".to_owned(),
            what: what.to_owned(),
        };
        if self.ended {
            return Ok(None);
        }
        let len = self.filled(4)?.and_then(|bytes| bytes.first_chunk::<4>().copied());
        let len = len.map(u32::from_le_bytes).ok_or_else(|| bad("it ends too early"))?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > RECORD_MAX {
            return Err(bad("a record is too long"));
        }
        self.at += 4;
        let body = self.filled(len)?.ok_or_else(|| bad("it ends too early"))?;
        let record = Record::decode(body).ok_or_else(|| bad("a record is malformed"))?;
        self.at += len;
        match &record {
            Record::Entry(_) => self.entries += 1,
            Record::Pieces(_) => {}
            Record::End(entries) => {
                if *entries != self.entries || !self.ids.is_empty() {
                    return Err(bad("it holds another number of objects"));
                }
                self.ended = true;
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// The next `len` bytes; `None` where the stream is shorter.
    fn filled(&mut self, len: usize) -> Result<Option<&[u8]>> {
        while self.buffer.len() - self.at < len {
            let Some(id) = self.ids.pop_front() else { return Ok(None) };
            self.buffer.drain(..self.at);
            self.at = 0;
            self.buffer.extend((self.fetch)(id)?);
        }
        Ok(self.buffer.get(self.at..self.at + len))
    }
}

/// Compares paths in the order of a walk: component by component.
pub(super) fn walk_order(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    let parts = |byte: &u8| *byte == b'/';
    left.split(parts).cmp(right.split(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let xattrs = Xattrs::from([(b"user.a".to_vec(), b"\0b".to_vec())]);
        let time = |secs| Time { secs, nanos: 999_999_999 };
        let (mode, uid, gid) = (0o4755, 7, u32::MAX - 1);
        let meta = Meta { mode, uid, gid, mtime: time(-5), atime: Some(time(6)), xattrs };
        Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            meta,
            ctime: time(7),
            ino: 1 << 40,
            device: (8, 1 << 19),
            size: 1 << 50,
            target: b"t".to_vec(),
            link: Some(Vec::new()),
        }
    }

    #[test]
    fn records_come_back_across_chunks_and_damage_is_found() {
        let piece = Piece { at: 1 << 40, len: 5, id: Id([9; 32]), from: 77 };
        let all = [
            Record::Entry(Box::new(entry("a"))),
            Record::Pieces(vec![piece; 3]),
            Record::Entry(Box::new(entry("a/b"))),
        ];
        let mut bytes: Vec<u8> = all.iter().flat_map(|record| record.encode().unwrap()).collect();
        bytes.extend(Record::End(2).encode().unwrap());
        let read = |bytes: &[u8], step: usize| -> Result<Vec<Record>> {
            let chunks: Vec<Vec<u8>> = bytes.chunks(step).map(<[u8]>::to_vec).collect();
            let mut chunks = chunks.into_iter();
            let ids = vec![Id([0; 32]); chunks.len()];
            let mut records = Records::new(ids, |_| Ok(chunks.next().unwrap()));
            let mut found = Vec::new();
            while let Some(record) = records.next()? {
                found.push(record);
            }
            Ok(found)
        };
        for step in [1, 7, 100, bytes.len()] {
            assert_eq!(read(&bytes, step).unwrap(), all, "{step}");
        }
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], 50).is_err(), "cut at {len}");
        }
        bytes.push(0);
        let mut long = bytes;
        long.extend([0; 200]);
        assert!(read(&long, 50).is_err(), "something follows the end");
    }

    #[test]
    fn paths_are_in_the_order_of_a_walk() {
        let sorted = ["", "a", "a/b", "a/b/c", "a.b", "a0", "b"];
        assert!(sorted.is_sorted_by(|a, b| walk_order(a.as_bytes(), b.as_bytes()).is_lt()));
    }
}
