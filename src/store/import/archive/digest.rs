//! Digests as manifests write them.

use std::io::{self, ErrorKind, Read};

use sha2::{Digest as _, Sha256, Sha512};

use crate::store::StoreError;
use crate::store::hex::{self, is_hex};

/// `sha256:` and 64, or `sha512:` and 128 digits; nothing else becomes part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// Reads a digest.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) if is_hex(hex, 64) => Some((Algorithm::Sha256, hex)),
            Some(("sha512", hex)) if is_hex(hex, 128) => Some((Algorithm::Sha512, hex)),
            _ => None,
        };
        let (algorithm, hex) = parsed.ok_or_else(|| StoreError::Archive {
            what: format!(
                "{:?} is no digest: sha256: and 64, or sha512: and 128 digits",
                super::super::path::shown(text.as_bytes())
            ),
        })?;
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// The SHA-256 of bytes.
    pub(super) fn sha256(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex::encode(&Sha256::digest(bytes)) }
    }

    pub(super) fn is_sha256(&self) -> bool {
        self.algorithm == Algorithm::Sha256
    }

    #[cfg(test)]
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }

    /// Where an OCI layout keeps the bytes.
    pub(super) fn part(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }

    /// Refuses bytes that have another digest.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let found = match self.algorithm {
            Algorithm::Sha256 => hex::encode(&Sha256::digest(bytes)),
            Algorithm::Sha512 => hex::encode(&Sha512::digest(bytes)),
        };
        if found == self.hex {
            return Ok(());
        }
        let what = format!("{self} is damaged: its bytes have the digest {found}");
        Err(StoreError::Archive { what })
    }

    /// A reader that fails at its end where the bytes have another digest.
    pub(super) fn verify<R: Read>(self, inner: R) -> Verifying<R> {
        Verifying { inner, sha256: Sha256::new(), sha512: Sha512::new(), expected: self }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// See [`Digest::verify`].
pub(super) struct Verifying<R> {
    inner: R,
    sha256: Sha256,
    sha512: Sha512,
    expected: Digest,
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        let bytes = buf.get(..len).unwrap_or_default();
        let sha256 = self.expected.is_sha256();
        if len > 0 || buf.is_empty() {
            if sha256 {
                self.sha256.update(bytes)
            } else {
                self.sha512.update(bytes)
            }
            return Ok(len);
        }
        let found = if sha256 {
            hex::encode(&self.sha256.clone().finalize())
        } else {
            hex::encode(&self.sha512.clone().finalize())
        };
        if found == self.expected.hex {
            return Ok(0);
        }
        let what = format!("{} has the digest {found}", self.expected);
        Err(io::Error::new(ErrorKind::InvalidData, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_become_paths() {
        let good = format!("sha256:{}", "0a".repeat(32));
        let part = Digest::parse(&good).unwrap().part();
        assert_eq!(part, format!("blobs/sha256/{}", "0a".repeat(32)));
        assert!(Digest::parse(&format!("sha512:{}", "0a".repeat(64))).is_ok());
        for bad in [
            "",
            "sha256:",
            "sha256:../../../etc/passwd",
            &format!("sha256:{}", "0A".repeat(32)),
            &format!("sha256:{}", "0a".repeat(33)),
            &format!("sha512:{}", "0a".repeat(32)),
            &format!("md5:{}", "0a".repeat(16)),
            &format!("../sha256:{}", "0a".repeat(32)),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_bytes_are_found() {
        let digest = Digest::sha256(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.hex(), hex);
        assert!(digest.check(b"abc").is_ok());
        assert!(digest.check(b"abd").is_err());
        let read = |bytes: &[u8]| digest.clone().verify(bytes).read_to_end(&mut Vec::new());
        assert_eq!(read(b"abc").unwrap(), 3);
        assert_eq!(read(b"abd").unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
