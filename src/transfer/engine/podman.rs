//! The storage of podman, buildah and CRI-O (containers/storage), with its driver `overlay`.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::storage::Storage;
use super::{Listed, stored};
use crate::format::oci::Manifest;
use crate::transfer::archive::{FoundImage, diff_ids_of, json};
use crate::transfer::error::TransferError;
use crate::types::Digest;
use crate::types::hex::is_hex;

/// The driver whose layers are directories with whiteouts.
const DRIVER: &str = "overlay";

/// A row of `images.json`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageRow {
    id: String,
    digest: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    layer: Option<String>,
    #[serde(default)]
    big_data_names: Vec<String>,
}

/// A row of `layers.json`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerRow {
    id: String,
    parent: Option<String>,
    diff_digest: Option<String>,
}

pub(super) fn driver(storage: &Storage, named: Option<&str>) -> Result<String, TransferError> {
    let is_there = |part: &str| storage.directory(part).is_ok();
    match named {
        Some(DRIVER) => Ok(DRIVER.to_owned()),
        None if is_there("overlay-images") => Ok(DRIVER.to_owned()),
        Some(other) => Err(TransferError::Unsupported {
            what: format!("layers of podman's storage driver {other} cannot be read in place"),
        }),
        None => Err(TransferError::Unsupported {
            what: "it has no images of podman's storage driver overlay".to_owned(),
        }),
    }
}

fn images(storage: &Storage, driver: &str) -> Result<Vec<ImageRow>, TransferError> {
    let part = format!("{driver}-images/images.json");
    // A new storage has no list.
    match storage.text(&part)? {
        Some(text) => json(&part, text.as_bytes()),
        None => Ok(Vec::new()),
    }
}

pub(super) fn list(storage: &Storage, driver: &str) -> Result<Vec<Listed>, TransferError> {
    let mut listed = Vec::new();
    for row in images(storage, driver)? {
        let Ok(id) = Digest::parse(&format!("sha256:{}", row.id)) else { continue };
        let of_digest = |name: &String| {
            let path = name.rsplit_once(':').map_or(name.as_str(), |(path, _)| path);
            Some(format!("{path}@{}", row.digest.as_ref()?))
        };
        let (given, names): (Vec<String>, Vec<String>) =
            row.names.iter().cloned().partition(|name| name.contains('@'));
        let mut digest_names: Vec<String> = names.iter().filter_map(of_digest).collect();
        digest_names.extend(given);
        digest_names.sort();
        digest_names.dedup();
        listed.push(Listed { id, names, digest_names });
    }
    Ok(listed)
}

pub(super) fn image(
    storage: &Storage,
    driver: &str,
    listed: &Listed,
) -> Result<FoundImage, TransferError> {
    let gone = || TransferError::Malformed { what: "the engine removed it meanwhile".to_owned() };
    let row = images(storage, driver)?.into_iter().find(|row| row.id == listed.id.hex());
    let row = row.ok_or_else(gone)?;
    let config = storage.read(&big_data(driver, &row.id, &listed.id.to_string()))?;
    listed.id.check(&config)?;
    let diff_ids = diff_ids_of("its configuration", &config)?;
    let chain = chain(storage, driver, row.layer.as_deref())?;
    let same = chain.len() == diff_ids.len()
        && chain.iter().zip(&diff_ids).all(|(row, id)| {
            row.diff_digest.as_ref().is_some_and(|digest| *digest == id.to_string())
        });
    if !same {
        return Err(TransferError::Unsupported {
            what: "podman's records of its layers do not have the diff IDs of its configuration"
                .to_owned(),
        });
    }
    let layers = chain.into_iter().zip(&diff_ids).map(|(row, diff_id)| {
        stored(storage, &split(driver, &row.id), row.id.clone(), diff_id.clone())
    });
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let manifest = match row.big_data_names.iter().any(|name| name == "manifest") {
        true => Some(storage.read(&big_data(driver, &row.id, "manifest"))?),
        false => None,
    };
    let manifest = manifest.filter(|raw| is_of_tars(raw, &diff_ids));
    let (names, config_digest) = (listed.names.clone(), listed.id.clone());
    Ok(FoundImage { names, manifest, config, config_digest, layers })
}

/// Whether a manifest names the uncompressed layers, whose bytes are what is read here.
fn is_of_tars(raw: &[u8], diff_ids: &[Digest]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(raw) else { return false };
    let layers = manifest.layers.unwrap_or_default();
    layers.len() == diff_ids.len()
        && layers.iter().zip(diff_ids).all(|(layer, id)| layer.digest == id.to_string())
}

/// The rows of the layers from the lowest to `top`.
fn chain(
    storage: &Storage,
    driver: &str,
    top: Option<&str>,
) -> Result<Vec<LayerRow>, TransferError> {
    let part = format!("{driver}-layers/layers.json");
    let rows: Vec<LayerRow> = match storage.text(&part)? {
        Some(text) => json(&part, text.as_bytes())?,
        None => Vec::new(),
    };
    let mut rows: HashMap<String, LayerRow> =
        rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut chain = Vec::new();
    let mut next = top.map(str::to_owned).filter(|top| !top.is_empty());
    while let Some(id) = next {
        // A row is taken once, so a circle ends.
        let row = rows.remove(&id).filter(|row| is_hex(&row.id, 64)).ok_or_else(|| {
            let what = format!("podman has no record of layer {id:.64}");
            TransferError::Unsupported { what }
        })?;
        next = row.parent.clone().filter(|parent| !parent.is_empty());
        chain.push(row);
    }
    chain.reverse();
    Ok(chain)
}

/// The place of a document of an image. Names with other letters than these are encoded.
fn big_data(driver: &str, id: &str, name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    let file = if plain { name.to_owned() } else { format!("={}", STANDARD.encode(name)) };
    format!("{driver}-images/{id}/{file}")
}

fn split(driver: &str, id: &str) -> String {
    format!("{driver}-layers/{id}.tar-split.gz")
}

/// The tar-split and the files of a layer, by its id.
pub(super) fn places(driver: &str, id: &str) -> (String, String) {
    (split(driver, id), format!("{driver}/{id}/diff"))
}
