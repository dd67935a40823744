//! The record of the layers of a volume, `stack.json` in its directory.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::{Result, VolumeError};
use crate::catalog::error::CatalogError;
use crate::error::FromHost;
use crate::store::LayerId;
use crate::store::files::write_whole;

/// The name of the record.
const RECORD: &str = "stack.json";
/// No record is longer.
const RECORD_MAX: u64 = 1 << 20;

/// The layers of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stack {
    /// The layer that is written; `None` until the first mount.
    pub upper: Option<String>,
    /// The layers below, the topmost first.
    pub layers: Vec<String>,
    /// The layers of an image below these, the lowest first, by their ids in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<String>,
}

impl Stack {
    /// The stack after the upper became a layer, with another upper or none.
    #[must_use]
    pub fn frozen(&self, upper: Option<String>) -> Self {
        let layers = self.upper.iter().chain(&self.layers).cloned().collect();
        Self { upper, layers, image: self.image.clone() }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(RECORD)
}

/// Whether the directory of a volume has a record.
#[must_use]
pub fn exists(directory: &Path) -> bool {
    fs::symlink_metadata(path(directory)).is_ok()
}

/// Reads the record in the directory of a volume.
///
/// # Errors
/// [`VolumeError::Host`]; a record that is damaged.
pub fn read(directory: &Path) -> Result<Stack> {
    let path = path(directory);
    let mut text = String::new();
    let opened = fs::File::open(&path);
    opened
        .and_then(|file| file.take(RECORD_MAX).read_to_string(&mut text))
        .map_err(VolumeError::io(&path))?;
    let invalid = |error| VolumeError::io(&path)(std::io::Error::other(error));
    // A list would be taken as the fields in their order, and an empty one as no layers at all.
    let parsed = serde_json::from_str(&text).and_then(|fields: serde_json::Map<_, _>| {
        serde_json::from_value::<Stack>(serde_json::Value::Object(fields))
    });
    let stack = parsed.map_err(|error| invalid(error.to_string()))?;
    // An id is a name in the pool.
    let is_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let named = stack.upper.iter().chain(&stack.layers).find(|id| !is_id(id));
    let of_image = stack.image.iter().find(|id| id.parse::<LayerId>().is_err());
    match named.or(of_image) {
        Some(id) => Err(invalid(format!("{id:?} is not the id of a layer"))),
        None => Ok(stack),
    }
}

/// As [`read`]; a directory without a record has no layers.
///
/// # Errors
/// As [`read`].
pub fn read_any(directory: &Path) -> Result<Stack> {
    match read(directory) {
        Err(VolumeError::Host(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Stack::default())
        }
        found => found,
    }
}

/// Writes the record, whole or not at all.
///
/// # Errors
/// [`VolumeError::Catalog`].
pub fn write(directory: &Path, stack: &Stack) -> Result<()> {
    let path = path(directory);
    let text = serde_json::to_vec(stack).map_err(std::io::Error::other);
    let text = text.map_err(VolumeError::io(&path))?;
    Ok(write_whole(&path, &text).map_err(CatalogError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_names_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let id = |digit: char| digit.to_string().repeat(32);
        let image = vec!["0".repeat(64)];
        let stack = Stack { upper: Some(id('a')), layers: vec![id('b'), id('c')], image };
        write(dir.path(), &stack).unwrap();
        assert_eq!(read(dir.path()).unwrap(), stack);
        let next = stack.frozen(Some(id('d')));
        assert_eq!((next.upper, next.layers.first()), (Some(id('d')), stack.upper.as_ref()));
        assert_eq!(next.image, stack.image);
        fs::write(path(dir.path()), r#"{"Upper": null, "Layers": []}"#).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Stack::default());
        let leads = r#"{"Upper": null, "Layers": ["../../etc"]}"#;
        let unnamed = r#"{"Upper": "", "Layers": []}"#;
        let image = r#"{"Upper": null, "Layers": [], "Image": ["../../x"]}"#;
        for bad in [leads, unnamed, image, "{", "{}", "[]", "[null, []]", r#"{"Upper": null}"#] {
            fs::write(path(dir.path()), bad).unwrap();
            read(dir.path()).unwrap_err();
        }
    }
}
