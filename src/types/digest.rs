//! Digests in the form of manifests.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

use super::hex::{self, is_hex};

/// The number of bytes of a malformed digest that its error shows.
const SHOWN_MAX: usize = 256;

/// `sha256:` and 64 digits, or `sha512:` and 128; nothing else becomes part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {:?}: use sha256: and 64 digits, or sha512: and 128", shown(.0))]
pub struct BadDigest(String);

/// Bytes with another digest than the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} is damaged: its bytes have the digest {found}")]
pub struct OtherDigest {
    /// The digest that the bytes should have.
    pub expected: Digest,
    /// The digits of the digest that they have.
    pub found: String,
}

// Escapes the bytes, so that none of them can control a terminal.
fn shown(text: &str) -> String {
    let mut end = text.len().min(SHOWN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < text.len() { "..." } else { "" };
    format!("{}{more}", text.get(..end).unwrap_or_default().escape_debug())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// Parses a digest.
    ///
    /// # Errors
    /// [`BadDigest`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BadDigest> {
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) if is_hex(hex, 64) => Some((Algorithm::Sha256, hex)),
            Some(("sha512", hex)) if is_hex(hex, 128) => Some((Algorithm::Sha512, hex)),
            _ => None,
        };
        let (algorithm, hex) = parsed.ok_or_else(|| BadDigest(text.to_owned()))?;
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// Computes the SHA-256 of bytes.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(&Sha256::digest(bytes).into())
    }

    /// Makes the digest of a SHA-256 value.
    #[must_use]
    pub fn from_sha256(value: &[u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex::encode(value) }
    }

    /// Whether it is a SHA-256.
    #[must_use]
    pub fn is_sha256(&self) -> bool {
        self.algorithm == Algorithm::Sha256
    }

    /// The digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The path of the bytes in an OCI layout.
    #[must_use]
    pub fn part(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }

    /// Refuses bytes that have another digest.
    ///
    /// # Errors
    /// [`OtherDigest`].
    pub fn check(&self, bytes: &[u8]) -> Result<(), OtherDigest> {
        let found = match self.algorithm {
            Algorithm::Sha256 => hex::encode(&Sha256::digest(bytes)),
            Algorithm::Sha512 => hex::encode(&Sha512::digest(bytes)),
        };
        if found == self.hex {
            return Ok(());
        }
        Err(OtherDigest { expected: self.clone(), found })
    }

    /// Returns a reader that fails at its end if the bytes have another digest.
    pub fn verify<R: Read>(self, inner: R) -> Verifying<R> {
        Verifying { inner, sha256: Sha256::new(), sha512: Sha512::new(), expected: self }
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        Self::parse(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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
pub struct Verifying<R> {
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

    #[test]
    fn a_digest_is_written_as_its_text_and_nothing_else_is_read() {
        let digest = Digest::sha256(b"abc");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:../x\"").is_err());
    }

    #[test]
    fn a_malformed_digest_is_shown_in_part_and_steers_no_terminal() {
        let error = Digest::parse(&format!("a\u{1b}{}", "\u{e9}".repeat(400))).unwrap_err();
        let text = error.to_string();
        assert!(text.len() < 2 * SHOWN_MAX && text.contains("..."), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
