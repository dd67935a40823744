//! The configuration of an image (image-spec `config.md`), new or changed.
//!
//! Unknown fields are kept: engines use more fields than the specification has.

use serde_json::{Map, Value};

use crate::format::oci::RootFs;
use crate::sys::process::architecture;
use crate::transfer::error::{Result, TransferError};

/// A configuration.
pub struct Configuration(Map<String, Value>);

impl Default for Configuration {
    /// A configuration for this machine, without layers.
    fn default() -> Self {
        let platform = [("architecture", architecture()), ("os", "linux")];
        let platform = platform.map(|(key, value)| (key.to_owned(), Value::from(value)));
        Self(platform.into_iter().collect())
    }
}

impl Configuration {
    /// Parses a configuration; `None` if the bytes are not a JSON object.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(Self)
    }

    /// Sets a text field.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Sets the list of layers, the lowest first.
    ///
    /// # Errors
    /// [`TransferError::Malformed`] if they cannot be written as JSON, which does not happen.
    pub fn set_layers(&mut self, diff_ids: Vec<String>) -> Result<()> {
        let rootfs = serde_json::to_value(RootFs::new(diff_ids));
        let bad = |error: serde_json::Error| TransferError::Malformed { what: error.to_string() };
        self.0.insert("rootfs".to_owned(), rootfs.map_err(bad)?);
        Ok(())
    }

    /// Adds a step to the history.
    pub fn add_step<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value)));
        let step = Value::Object(fields.collect());
        match self.0.get_mut("history") {
            Some(Value::Array(steps)) => steps.push(step),
            _ => drop(self.0.insert("history".to_owned(), Value::Array(vec![step]))),
        }
    }

    /// The bytes of the document.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        Value::Object(self.0).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_kept() {
        let old = br#"{"config":{"Healthcheck":{"Test":["NONE"]}},"history":[{"created_by":"a"}]}"#;
        let mut config = Configuration::parse(old).unwrap();
        config.set_layers(vec!["sha256:1".to_owned()]).unwrap();
        config.add_step([("created_by", "b")]);
        let new: Value = serde_json::from_slice(&config.into_bytes()).unwrap();
        assert_eq!(new["config"]["Healthcheck"]["Test"][0], "NONE");
        assert_eq!(new["rootfs"]["diff_ids"][0], "sha256:1");
        assert_eq!(new["history"][0]["created_by"], "a");
        assert_eq!(new["history"][1]["created_by"], "b");
    }

    #[test]
    fn a_document_that_is_no_object_is_none() {
        assert!(Configuration::parse(b"[]").is_none());
        assert!(Configuration::parse(b"{").is_none());
    }
}
