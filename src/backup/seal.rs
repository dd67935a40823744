//! How an object is compressed, encrypted and checked.
//!
//! An object is a head of 8 bytes (`LBK1`, the kind, flags, two zeroes) and a body. With a key the
//! body is a nonce of 24 random bytes and the output of XChaCha20-Poly1305, which covers the head
//! and the name of the object too: no object can take the place of another one. Without a key the
//! body is the BLAKE3 of the rest, and the rest. Both hold the content, compressed by zstd where
//! that makes it shorter.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::error::{BackupError, Result};
use super::key::Key;
use crate::error::FromHost;
use crate::types::hex;

const MAGIC: &[u8; 4] = b"LBK1";
const HEAD_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const SUM_BYTES: usize = 32;
const ZSTD: u8 = 1;
const ENCRYPTED: u8 = 2;
const LEVEL: i32 = 3;
/// What an object may be longer than its content.
pub(super) const OVERHEAD_BYTES: usize = 4096;

/// The contexts from which BLAKE3 derives keys; changing one makes repositories unreadable.
const CONTEXTS: [&str; 4] = [
    "lamina backup 1 encryption",
    "lamina backup 1 names of chunks",
    "lamina backup 1 cutting",
    "lamina backup 1 proof of the key",
];

/// The name of a chunk: the BLAKE3 of its content, keyed where the repository has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub(super) [u8; 32]);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chunk = 1,
    Manifest = 2,
}

/// Seals and opens objects.
pub(super) struct Sealer {
    cipher: Option<XChaCha20Poly1305>,
    names: Option<[u8; 32]>,
    seed: u64,
    proof: String,
}

impl Sealer {
    /// With a key, or without one.
    pub(super) fn new(key: Option<&Key>) -> Self {
        let Some(Key(key)) = key else {
            return Self { cipher: None, names: None, seed: 0, proof: String::new() };
        };
        let [encryption, names, cutting, proof] =
            CONTEXTS.map(|context| blake3::derive_key(context, key));
        let first = cutting.first_chunk::<8>().copied().unwrap_or_default();
        Self {
            cipher: Some(XChaCha20Poly1305::new(&encryption.into())),
            names: Some(names),
            seed: u64::from_le_bytes(first),
            proof: hex::encode(&proof),
        }
    }

    /// The key of the repository, as its configuration names it; empty without one.
    pub(super) fn proof(&self) -> &str {
        &self.proof
    }

    /// Where chunks are cut depends on it, so that their lengths do not show a known file.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// The name of a chunk.
    pub(super) fn id(&self, content: &[u8]) -> Id {
        let hash = match &self.names {
            Some(key) => blake3::keyed_hash(key, content),
            None => blake3::hash(content),
        };
        Id(hash.into())
    }

    /// Makes an object.
    pub(super) fn seal(&self, kind: Kind, name: &str, content: &[u8]) -> Result<Vec<u8>> {
        let failed = |what: &str| BackupError::Damaged {
            object: name.to_owned(),
            what: format!("sealing failed: {what}"),
        };
        let packed = zstd::bulk::compress(content, LEVEL).map_err(|e| failed(&e.to_string()))?;
        let (body, flag) =
            if packed.len() < content.len() { (packed.as_slice(), ZSTD) } else { (content, 0) };
        let encrypted = if self.cipher.is_some() { ENCRYPTED } else { 0 };
        let mut object = MAGIC.to_vec();
        object.extend([kind as u8, flag | encrypted, 0, 0]);
        let Some(cipher) = &self.cipher else {
            object.extend(blake3::hash(body).as_bytes());
            object.extend(body);
            return Ok(object);
        };
        let random = crate::sys::process::random();
        let random = random.map_err(BackupError::host(std::path::Path::new("getrandom")))?;
        let nonce = random.first_chunk::<NONCE_BYTES>().copied().unwrap_or_default();
        let aad = [object.as_slice(), name.as_bytes()].concat();
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: body, aad: &aad });
        object.extend(nonce);
        object.extend(sealed.map_err(|_| failed("encryption"))?);
        Ok(object)
    }

    /// Returns the content of an object of at most `most` bytes.
    pub(super) fn open(
        &self,
        kind: Kind,
        name: &str,
        object: &[u8],
        most: usize,
    ) -> Result<Vec<u8>> {
        let bad =
            |what: &str| BackupError::Damaged { object: name.to_owned(), what: what.to_owned() };
        let (head, rest) =
            object.split_at_checked(HEAD_BYTES).ok_or_else(|| bad("it is too short"))?;
        let [b'L', b'B', b'K', b'1', found, flags, 0, 0] = *head else {
            return Err(bad("its head is unknown"));
        };
        if found != kind as u8 || flags & !(ZSTD | ENCRYPTED) != 0 {
            return Err(bad("its head is that of another object"));
        }
        let body = match (&self.cipher, flags & ENCRYPTED != 0) {
            (Some(cipher), true) => {
                let (nonce, sealed) = rest
                    .split_first_chunk::<NONCE_BYTES>()
                    .ok_or_else(|| bad("it is too short"))?;
                let aad = [head, name.as_bytes()].concat();
                let opened =
                    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad });
                opened.map_err(|_| bad("it was changed, or has another key"))?
            }
            (None, false) => {
                let (sum, body) =
                    rest.split_first_chunk::<SUM_BYTES>().ok_or_else(|| bad("it is too short"))?;
                if blake3::hash(body) != *sum {
                    return Err(bad("its checksum differs"));
                }
                body.to_vec()
            }
            (Some(_), false) => return Err(bad("it is not encrypted")),
            (None, true) => return Err(bad("it is encrypted")),
        };
        if flags & ZSTD == 0 {
            return if body.len() <= most { Ok(body) } else { Err(bad("it is too long")) };
        }
        zstd::bulk::decompress(&body, most).map_err(|error| bad(&error.to_string()))
    }

    /// Returns the content of a chunk, which is compared with its name.
    pub(super) fn open_chunk(
        &self,
        id: Id,
        name: &str,
        object: &[u8],
        most: usize,
    ) -> Result<Vec<u8>> {
        let content = self.open(Kind::Chunk, name, object, most)?;
        if self.id(&content) == id {
            return Ok(content);
        }
        let what = "its content has another name".to_owned();
        Err(BackupError::Damaged { object: name.to_owned(), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_and_each_other_name_is_found() {
        let content = b"content ".repeat(20);
        for key in [None, Some(Key([7; 32]))] {
            let sealer = Sealer::new(key.as_ref());
            let id = sealer.id(&content);
            let object = sealer.seal(Kind::Chunk, "chunks/a", &content).unwrap();
            assert!(object.len() < content.len() + 64, "it is compressed");
            let open = |name: &str, object: &[u8]| sealer.open_chunk(id, name, object, 1000);
            assert_eq!(open("chunks/a", &object).unwrap(), content);
            for bit in 0..object.len() * 8 {
                let mut damaged = object.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(open("chunks/a", &damaged).is_err(), "bit {bit}");
            }
            for len in 0..object.len() {
                assert!(open("chunks/a", &object[..len]).is_err(), "{len} bytes");
            }
            assert!(sealer.open(Kind::Manifest, "chunks/a", &object, 1000).is_err());
            assert!(sealer.open(Kind::Chunk, "chunks/a", &object, content.len() - 1).is_err());
            assert_eq!(open("chunks/b", &object).is_err(), key.is_some());
        }
    }

    #[test]
    fn a_key_changes_names_and_hides_content() {
        let (plain, keyed) = (Sealer::new(None), Sealer::new(Some(&Key([1; 32]))));
        let other = Sealer::new(Some(&Key([2; 32])));
        assert_ne!(plain.id(b"x"), keyed.id(b"x"));
        assert_ne!(other.id(b"x"), keyed.id(b"x"));
        assert_ne!(other.proof(), keyed.proof());
        let object = keyed.seal(Kind::Manifest, "m", b"a secret that is not compressed").unwrap();
        assert!(!object.windows(6).any(|part| part == b"secret"));
        assert!(other.open(Kind::Manifest, "m", &object, 100).is_err());
        assert!(plain.open(Kind::Manifest, "m", &object, 100).is_err());
        let open = plain.seal(Kind::Manifest, "m", b"a secret").unwrap();
        assert!(keyed.open(Kind::Manifest, "m", &open, 100).is_err(), "a server cannot replace it");
    }
}
