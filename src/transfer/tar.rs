//! Import of one layer from a tar, plain or compressed.
//!
//! - `members`, with `header`, `pax`, `number` and `sparse`: tar as GNU tar, star, libarchive and
//!   Go write it; archives that two of them would read differently are refused;
//! - `entry`: passes members to a [`Sink`]; `unpack`: makes a tree of them.

use std::io::{self, BufReader, Read};

use super::limits::READ_BYTES;
use super::stream::{self, Packing};
use crate::store::sink::{Sink, TarRecorder};
use crate::transfer::error::TransferError;
use crate::types::Digest;
use crate::types::hashing::{Hashing, drain};

mod entry;
mod header;
pub(super) mod members;
mod number;
mod pax;
mod sparse;
mod unpack;

pub use unpack::{Unpacked, unpack};

/// The properties of a tar that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarOutcome {
    /// SHA-256 of the uncompressed stream, including padding after the end marker: the diff ID.
    pub diff_id: Digest,
    /// SHA-256 of the bytes as they were read; equal to `diff_id` without compression.
    pub compressed_digest: Digest,
    /// The number of members, without extension headers.
    pub entries: u64,
    /// Whether the tar had an end marker. GNU tar and Go accept an archive without one, but only a
    /// digest can distinguish it from an archive that was cut between two members.
    pub end_marked: bool,
}

/// Reads one layer from a tar, plain or compressed with gzip or zstd, and adds its objects to
/// `sink`.
///
/// The stream is read to its end, so both digests cover all of it. An empty stream is an empty
/// layer; only a digest can distinguish it from one that was lost. Memory does not grow with the
/// archive. After a failure, the content of the sink must be discarded.
///
/// # Errors
/// [`TransferError::Malformed`], [`TransferError::Damaged`] and [`TransferError::Truncated`] if the
/// stream is not a tar, is damaged or ends too early; [`TransferError::Entry`] for a member that no
/// layer can have or that tar implementations read differently; [`TransferError::Stream`] if
/// `reader` fails; errors of `sink`.
pub fn layer_from_tar(reader: impl Read, sink: &mut dyn Sink) -> Result<TarOutcome, TransferError> {
    layer_from_tar_recorded(reader, sink, None)
}

/// Like [`layer_from_tar`], and records how the tar was written.
///
/// # Errors
/// As [`layer_from_tar`].
pub fn layer_from_tar_recorded(
    mut reader: impl Read,
    sink: &mut dyn Sink,
    recorder: Option<&mut dyn TarRecorder>,
) -> Result<TarOutcome, TransferError> {
    let head = stream::head(&mut reader).map_err(|error| stream::failed("archive", error))?;
    let packing = Packing::of(&head)?;
    let joined = io::Cursor::new(head).chain(reader);
    if packing == Packing::Plain {
        let (diff_id, entries, end_marked) = read_plain(joined, sink, recorder)?;
        let compressed_digest = diff_id.clone();
        return Ok(TarOutcome { diff_id, compressed_digest, entries, end_marked });
    }
    let mut raw = Hashing::new(joined);
    let plain = stream::decoder(packing, &mut raw)?;
    let (diff_id, entries, end_marked) = read_plain(plain, sink, recorder)?;
    drain(&mut raw).map_err(|error| stream::failed("archive", error))?;
    Ok(TarOutcome { diff_id, compressed_digest: raw.finish(), entries, end_marked })
}

fn read_plain(
    plain: impl Read,
    sink: &mut dyn Sink,
    recorder: Option<&mut dyn TarRecorder>,
) -> Result<(Digest, u64, bool), TransferError> {
    let mut hashing = Hashing::new(plain);
    let buffered = BufReader::with_capacity(READ_BYTES, &mut hashing);
    let mut members = members::Members::new(members::Streamed::heard(buffered, recorder));
    let entries = entry::import(&mut members, sink)?;
    let end_marked = members.end_marked();
    members.drain().map_err(|error| stream::failed("archive", error))?;
    drop(members);
    Ok((hashing.finish(), entries, end_marked))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn sha256(bytes: &[u8]) -> Digest {
        Digest::sha256(bytes)
    }

    fn outcome(bytes: &[u8]) -> Result<TarOutcome, TransferError> {
        layer_from_tar(bytes, &mut Recorder::default())
    }

    fn sample() -> Vec<u8> {
        Tar::default().file("a", &[7; 70_000]).file("b", b"b").end()
    }

    #[test]
    fn digests_are_of_the_whole_stream() {
        // GNU tar pads to a record of 10 KiB, and ignores non-zero bytes after the end.
        let mut plain = sample();
        plain.resize(plain.len() + 9000, 0);
        plain.extend_from_slice(b"garbage");
        let seen = outcome(&plain).unwrap();
        let digest = sha256(&plain);
        let expected = TarOutcome {
            diff_id: digest.clone(),
            compressed_digest: digest,
            entries: 2,
            end_marked: true,
        };
        assert_eq!(seen, expected);
        for packed in [gzip(&plain), zstd(&plain)] {
            let seen = outcome(&packed).unwrap();
            let compressed_digest = sha256(&packed);
            assert_eq!(seen, TarOutcome { compressed_digest, ..expected.clone() });
        }
    }

    #[test]
    fn concatenated_members_and_frames_are_one_stream() {
        let plain = sample();
        let (front, back) = plain.split_at(1000);
        for packed in [[gzip(front), gzip(back)].concat(), [zstd(front), zstd(back)].concat()] {
            let seen = outcome(&packed).unwrap();
            assert_eq!(seen.diff_id, sha256(&plain));
            assert_eq!(seen.compressed_digest, sha256(&packed));
        }
        let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
        let packed = [zstd(&plain).as_slice(), skippable].concat();
        assert_eq!(outcome(&packed).unwrap().compressed_digest, sha256(&packed));
    }

    #[test]
    fn cut_streams_are_truncated_archives() {
        let plain = sample();
        let cuts = [
            plain.get(..300).unwrap().to_vec(),
            plain.get(..5000).unwrap().to_vec(),
            plain.get(..512).unwrap().to_vec(),
        ];
        let packed = [gzip(&plain), zstd(&plain)];
        let packed = packed
            .iter()
            .flat_map(|all| [all.len() / 2, all.len() - 3].map(|to| all[..to].to_vec()));
        for cut in cuts.into_iter().chain(packed) {
            let error = outcome(&cut).unwrap_err();
            assert!(matches!(error, TransferError::Truncated { .. }), "{error:?}");
            assert!(error.to_string().contains("truncated"), "{error}");
        }
    }

    #[test]
    fn a_layer_of_no_bytes_is_an_empty_layer() {
        let seen = outcome(b"").unwrap();
        assert_eq!((seen.entries, seen.end_marked, seen.diff_id), (0, false, sha256(b"")));
        for packed in [gzip(b""), zstd(b"")] {
            let seen = outcome(&packed).unwrap();
            assert_eq!((seen.diff_id, seen.compressed_digest), (sha256(b""), sha256(&packed)));
        }
    }

    #[test]
    fn a_missing_end_marker_is_told() {
        let plain = Tar::default().file("a", b"a").0;
        let seen = outcome(&plain).unwrap();
        assert_eq!((seen.entries, seen.end_marked), (1, false));
    }

    #[test]
    fn damage_within_a_compressed_stream_is_told() {
        for mut packed in [gzip(&sample()), zstd(&sample())] {
            let at = packed.len() - 6;
            packed[at] ^= 0xff;
            packed.extend_from_slice(b"trailing garbage");
            let error = outcome(&packed).unwrap_err();
            assert!(matches!(error, TransferError::Damaged { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_reader_that_fails_is_no_bad_archive() {
        struct Fails(usize);
        impl Read for Fails {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let plain = sample();
                let left = plain.get(self.0..3000).unwrap_or_default();
                if left.is_empty() {
                    return Err(io::Error::from_raw_os_error(5));
                }
                let len = left.len().min(buf.len());
                buf[..len].copy_from_slice(&left[..len]);
                self.0 += len;
                Ok(len)
            }
        }
        let error = layer_from_tar(Fails(0), &mut Recorder::default()).unwrap_err();
        assert!(matches!(error, TransferError::Stream { .. }), "{error:?}");
    }
}
