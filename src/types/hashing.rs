//! Readers that compute a digest of the bytes that they read.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::digest::Digest;

/// A reader that computes the SHA-256 of the bytes that it reads.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashing<R> {
    /// Makes a reader that computes the digest of the bytes of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Returns the SHA-256 of all bytes that were read.
    pub fn finish(self) -> Digest {
        Digest::from_sha256(&self.hash.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hash.update(buf.get(..len).unwrap_or_default());
        Ok(len)
    }
}

/// Reads to the end and drops the bytes; returns their count.
///
/// # Errors
/// As `reader`.
pub fn drain(reader: &mut dyn Read) -> io::Result<u64> {
    io::copy(reader, &mut io::sink())
}
