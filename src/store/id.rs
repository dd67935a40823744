//! The names of layers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::StoreError;
use crate::types::hex::is_hex;

/// Names a layer: the BLAKE3 of its index, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

impl LayerId {
    /// The id of the layer with this index.
    #[must_use]
    pub fn of(index: &[u8]) -> Self {
        Self(blake3::hash(index).to_hex().to_string())
    }

    /// The digits.
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
