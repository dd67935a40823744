//! Records of the store: small serde values with a header of Lamina's own.
//!
//! A record is 8 bytes of magic, its version (u16), the length of its payload (u32), the BLAKE3 of
//! the payload, and the payload in bincode's standard form. All numbers are little-endian. A record
//! that is cut off, changed or of a later version is an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::index::corrupt;
use crate::error::Result;

const MAGIC: [u8; 8] = *b"LMNREC1\0";
const HEAD_LEN: usize = 8 + 2 + 4 + 32;
/// The longest payload: 16 MiB, more than any configuration of an image.
const PAYLOAD_MAX: usize = 16 << 20;

/// Returns the bytes of a record.
///
/// # Errors
/// [`Error::Corrupt`](crate::error::Error) if the value cannot be encoded or takes more than 16
/// MiB.
pub fn encode<T: Serialize>(version: u16, value: &T) -> Result<Vec<u8>> {
    let payload = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| corrupt(format!("a record cannot be written: {error}")))?;
    if payload.len() > PAYLOAD_MAX {
        return Err(corrupt("a record of more than 16 MiB"));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(blake3::hash(&payload).as_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Returns the value of a record of this version.
///
/// # Errors
/// [`Error::Corrupt`](crate::error::Error) with the reason.
pub fn decode<T: DeserializeOwned>(version: u16, bytes: &[u8]) -> Result<T> {
    let (head, payload) = bytes.split_at_checked(HEAD_LEN).ok_or_else(|| corrupt("no record"))?;
    let (magic, head) = head.split_at(MAGIC.len());
    let (found, head) = head.split_at(2);
    let (len, digest) = head.split_at(4);
    if magic != MAGIC {
        return Err(corrupt("no record"));
    }
    if found != version.to_le_bytes() {
        return Err(corrupt("a record of another version"));
    }
    let expected = (payload.len() as u32).to_le_bytes();
    if len != expected || payload.len() > PAYLOAD_MAX || digest != blake3::hash(payload).as_bytes()
    {
        return Err(corrupt("a record that was cut off or changed"));
    }
    let config = bincode::config::standard().with_limit::<PAYLOAD_MAX>();
    match bincode::serde::decode_from_slice(payload, config) {
        Ok((value, read)) if read == payload.len() => Ok(value),
        _ => Err(corrupt("a record that holds something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let value = (7_u64, "text".to_owned(), vec![1_u8, 2]);
        let bytes = encode(3, &value).unwrap();
        assert_eq!(decode::<(u64, String, Vec<u8>)>(3, &bytes).unwrap(), value);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_an_error() {
        let value = (7_u64, "text".to_owned());
        let bytes = encode(3, &value).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode::<(u64, String)>(3, &bad).is_err(), "byte {at}");
            assert!(decode::<(u64, String)>(3, &bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(decode::<(u64, String)>(4, &bytes).is_err(), "another version");
    }
}
