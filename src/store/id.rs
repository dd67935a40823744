//! The id of a layer, and the id of its content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::StoreError;
use crate::types::Digest;
use crate::types::digest::BadDigest;
use crate::types::hex::is_hex;

/// The id of a layer: the BLAKE3 of its index, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

impl LayerId {
    /// Returns the id of the layer with this index.
    #[must_use]
    pub fn of(index: &[u8]) -> Self {
        Self(blake3::hash(index).to_hex().to_string())
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for LayerId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if is_hex(text, 64) {
            return Ok(Self(text.to_owned()));
        }
        Err(StoreError::Missing { kind: "layer", name: text.to_owned() })
    }
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The algorithm of a [`DiffId::Tree`] as text.
const TREE: &str = "blake3:";

/// The id of the content of a layer. As text it is `sha256:`, `sha512:` or `blake3:` and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiffId {
    /// The digest of the uncompressed tar from which the layer was made (the `diff_ids` of OCI).
    Tar(Digest),
    /// The layer's own id: it was made from a directory, without a tar.
    Tree(LayerId),
}

impl DiffId {
    /// The digest of the tar, if the layer was made from one.
    #[must_use]
    pub const fn tar(&self) -> Option<&Digest> {
        match self {
            Self::Tar(digest) => Some(digest),
            Self::Tree(_) => None,
        }
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(digest) => digest.fmt(f),
            Self::Tree(id) => write!(f, "{TREE}{id}"),
        }
    }
}

impl FromStr for DiffId {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let id = text.strip_prefix(TREE).and_then(|digits| digits.parse().ok());
        id.map_or_else(|| text.parse().map(Self::Tar), |id| Ok(Self::Tree(id)))
    }
}

impl Serialize for DiffId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiffId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
