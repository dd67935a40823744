//! The layers of a stream beneath a tar: digests, compression, and their errors.

use std::cell::Cell;
use std::io::{self, BufReader, ErrorKind, Read};

use std::rc::Rc;

use super::limits::READ_BYTES;
use crate::transfer::error::TransferError;

/// Number of bytes needed to detect the compression.
const HEAD_BYTES: u64 = 6;

/// The largest window of a zstd frame, as log2: 128 MiB, which `zstd -d` accepts by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The limit for a decompressed stream: 64 GiB in any case, then 1,024 times the compressed length
/// (the maximum of gzip), and never more than 1 TiB.
const LIMITS: Limits = Limits { free: 64 << 30, times: 1024, most: 1 << 40 };

/// The compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// No compression.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Packing {
    /// Detects the compression by the first bytes of a stream.
    pub(super) fn of(head: &[u8]) -> Result<Self, TransferError> {
        let other = match head {
            [0x1f, 0x8b, ..] => return Ok(Self::Gzip),
            // The second is a skippable frame, with which zstd:chunked may begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                return Ok(Self::Zstd);
            }
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => "bzip2",
            [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
            _ => return Ok(Self::Plain),
        };
        let what = format!("the archive is compressed by {other}; gzip and zstd are supported");
        Err(TransferError::Unsupported { what })
    }
}

/// Converts a failed read of an archive: a truncated or damaged stream is the fault of the archive,
/// anything else is an error of the reader.
pub(super) fn failed(what: &str, error: io::Error) -> TransferError {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            TransferError::Truncated { what: what.to_owned(), end: error.to_string() }
        }
        ErrorKind::InvalidData => {
            TransferError::Damaged { what: what.to_owned(), found: error.to_string() }
        }
        _ => TransferError::Stream { what: what.to_owned(), source: error },
    }
}

/// Returns a copy of an error: one is kept, the other passes through the sink.
pub(super) fn copied(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The first bytes of a stream, fewer if it is shorter.
pub(super) fn head(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// Returns a reader that decompresses `raw`.
pub(super) fn decoder<'r>(
    packing: Packing,
    raw: impl Read + 'r,
) -> Result<Box<dyn Read + 'r>, TransferError> {
    let read = Rc::new(Cell::new(0));
    let counted = Counting { inner: raw, read: Rc::clone(&read) };
    let buffered = BufReader::with_capacity(READ_BYTES, counted);
    let limited = |inner| Limited { inner, limits: LIMITS, read, given: 0 };
    Ok(match packing {
        Packing::Plain => Box::new(buffered),
        Packing::Gzip => {
            let inner = flate2::bufread::MultiGzDecoder::new(buffered);
            Box::new(limited(Box::new(Decoding { inner, name: "gzip" })))
        }
        Packing::Zstd => {
            let zstd = |error| failed("zstd stream", error);
            let mut inner = zstd::stream::read::Decoder::with_buffer(buffered).map_err(zstd)?;
            inner.window_log_max(ZSTD_WINDOW_LOG).map_err(zstd)?;
            Box::new(limited(Box::new(Decoding { inner, name: "zstd" })))
        }
    })
}

/// Limits on the length of a decompressed stream.
#[derive(Clone, Copy)]
struct Limits {
    free: u64,
    times: u64,
    most: u64,
}

impl Limits {
    fn allow(self, read: u64, given: u64) -> bool {
        given <= self.free.max(read.saturating_mul(self.times)).min(self.most)
    }
}

/// A reader that counts the bytes read.
struct Counting<R> {
    inner: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.read.set(self.read.get().saturating_add(len as u64));
        Ok(len)
    }
}

/// A decoder that fails when its stream becomes too long.
struct Limited<'r> {
    inner: Box<dyn Read + 'r>,
    limits: Limits,
    read: Rc<Cell<u64>>,
    given: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.given = self.given.saturating_add(len as u64);
        if self.limits.allow(self.read.get(), self.given) {
            return Ok(len);
        }
        let what = format!("{} bytes become more than {}", self.read.get(), self.given);
        Err(io::Error::new(ErrorKind::InvalidData, format!("a bomb: {what}")))
    }
}

/// A decoder that marks its own errors, to distinguish them from those of the inner reader.
struct Decoding<R> {
    inner: R,
    name: &'static str,
}

impl<R: Read> Read for Decoding<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| match error.kind() {
            // Only the inner reader returns an errno.
            _ if error.raw_os_error().is_some() => error,
            ErrorKind::Interrupted => error,
            ErrorKind::UnexpectedEof => {
                let what = format!("the {} stream ends too early", self.name);
                io::Error::new(ErrorKind::UnexpectedEof, what)
            }
            _ => io::Error::new(ErrorKind::InvalidData, format!("{} stream: {error}", self.name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hashing::drain;

    #[test]
    fn compressions_are_known_by_their_first_bytes() {
        assert_eq!(Packing::of(b"\x1f\x8b\x08").unwrap(), Packing::Gzip);
        assert_eq!(Packing::of(b"\x28\xb5\x2f\xfd\0\0").unwrap(), Packing::Zstd);
        assert_eq!(Packing::of(b"\x5e\x2a\x4d\x18\0\0").unwrap(), Packing::Zstd);
        assert_eq!(Packing::of(b"etc/pa").unwrap(), Packing::Plain);
        assert_eq!(Packing::of(&[0; 6]).unwrap(), Packing::Plain);
    }

    #[test]
    fn unsupported_compressions_are_named() {
        let xz = Packing::of(b"\xfd7zXZ\0").unwrap_err().to_string();
        assert!(xz.contains("xz"), "{xz}");
        let bzip2 = Packing::of(b"BZh91A").unwrap_err().to_string();
        assert!(bzip2.contains("bzip2"), "{bzip2}");
    }

    #[test]
    fn a_bomb_ends_and_a_disk_of_zeroes_does_not() {
        let limits = Limits { free: 1000, times: 10, most: 100_000 };
        let read = |given: u64, compressed: u64| {
            let inner: Box<dyn Read> = Box::new(io::repeat(0).take(given));
            let read = Rc::new(Cell::new(compressed));
            drain(&mut Limited { inner, limits, read, given: 0 })
        };
        assert_eq!(read(1000, 1).unwrap(), 1000);
        assert_eq!(read(5000, 500).unwrap(), 5000);
        for (given, compressed) in [(1001, 1), (5001, 500), (100_001, 1 << 30)] {
            let error = failed("archive", read(given, compressed).unwrap_err());
            assert!(error.to_string().contains("a bomb"), "{error}");
            assert!(matches!(error, TransferError::Damaged { .. }));
        }
        let packed = zstd::encode_all(&[0; 1 << 20][..], 1).unwrap();
        let mut plain = decoder(Packing::Zstd, &packed[..]).unwrap();
        assert_eq!(drain(&mut plain).unwrap(), 1 << 20);
    }

    #[test]
    fn an_errno_stays_the_fault_of_the_reader() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let mut through = decoder(Packing::Gzip, Broken).unwrap();
        let error = through.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
        assert!(matches!(failed("archive", error), TransferError::Stream { .. }));
    }
}
