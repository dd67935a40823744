//! Docker's storage: `image/DRIVER` has the records, and `DRIVER/CACHE-ID/diff` the files of a
//! layer. The drivers overlay2 and fuse-overlayfs have that form.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::storage::Storage;
use super::{Listed, stored};
use crate::transfer::archive::{FoundImage, FoundLayer, diff_ids_of, json};
use crate::transfer::error::TransferError;
use crate::types::Digest;
use crate::types::hex::is_hex;

/// The drivers whose layers are directories with whiteouts.
const DRIVERS: [&str; 2] = ["overlay2", "fuse-overlayfs"];

/// `repositories.json`: by the path of a repository its full names, by name the id.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

pub(super) fn driver(storage: &Storage, named: Option<&str>) -> Result<String, TransferError> {
    if let Some(named) = named {
        let known = DRIVERS.contains(&named);
        let what = format!("layers of Docker's storage driver {named} cannot be read in place");
        return if known { Ok(named.to_owned()) } else { Err(TransferError::Unsupported { what }) };
    }
    let there = storage.names("image")?;
    let mut known = DRIVERS.iter().filter(|driver| there.iter().any(|one| one == *driver));
    match (known.next(), known.next()) {
        (Some(driver), None) => Ok((*driver).to_owned()),
        (None, _) => Err(TransferError::Unsupported {
            what: "it has no images of Docker's storage driver overlay2 or fuse-overlayfs"
                .to_owned(),
        }),
        (Some(_), Some(_)) => Err(TransferError::Unsupported {
            what: "it has images of several storage drivers; start dockerd, and leave \
                   --storage-root out"
                .to_owned(),
        }),
    }
}

pub(super) fn list(storage: &Storage, driver: &str) -> Result<Vec<Listed>, TransferError> {
    let base = format!("image/{driver}");
    let mut images: BTreeMap<String, Listed> = BTreeMap::new();
    let mut parents = BTreeSet::new();
    for digits in storage.names(&format!("{base}/imagedb/content/sha256"))? {
        let Ok(id) = Digest::parse(&format!("sha256:{digits}")) else { continue };
        parents.extend(storage.text(&format!("{base}/imagedb/metadata/sha256/{digits}/parent"))?);
        let (names, digest_names) = (Vec::new(), Vec::new());
        images.insert(id.to_string(), Listed { id, names, digest_names });
    }
    let part = format!("{base}/repositories.json");
    let all: Repositories = json(&part, &storage.read(&part)?)?;
    for (name, id) in all.repositories.into_values().flatten() {
        // An image that was removed in between is in the one list and not in the other.
        let Some(image) = images.get_mut(&id) else { continue };
        let of_kind = if name.contains('@') { &mut image.digest_names } else { &mut image.names };
        of_kind.push(name);
    }
    // Steps of a build have no name, and are parents.
    let is_step = |image: &Listed| {
        image.names.is_empty()
            && image.digest_names.is_empty()
            && parents.contains(&image.id.to_string())
    };
    Ok(images.into_values().filter(|image| !is_step(image)).collect())
}

pub(super) fn image(
    storage: &Storage,
    driver: &str,
    listed: &Listed,
) -> Result<FoundImage, TransferError> {
    let digits = listed.id.hex();
    let part = format!("image/{driver}/imagedb/content/sha256/{digits}");
    let config = storage.read(&part)?;
    listed.id.check(&config)?;
    let mut layers = Vec::new();
    let mut chain: Option<Digest> = None;
    for diff_id in diff_ids_of(&part, &config)? {
        let id = match chain {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        layers.push(layer(storage, driver, &id, diff_id)?);
        chain = Some(id);
    }
    let (names, config_digest) = (listed.names.clone(), listed.id.clone());
    Ok(FoundImage { names, manifest: None, config, config_digest, layers })
}

fn layer(
    storage: &Storage,
    driver: &str,
    chain: &Digest,
    diff_id: Digest,
) -> Result<FoundLayer, TransferError> {
    let split = split(driver, chain.hex());
    stored(storage, &split, chain.hex().to_owned(), diff_id)
}

fn split(driver: &str, chain: &str) -> String {
    format!("image/{driver}/layerdb/sha256/{chain}/tar-split.json.gz")
}

/// The tar-split and the files of a layer, by the digits of its chain ID.
pub(super) fn places(
    storage: &Storage,
    driver: &str,
    chain: &str,
) -> Result<(String, String), TransferError> {
    let part = format!("image/{driver}/layerdb/sha256/{chain}/cache-id");
    let cache = storage.text(&part)?.unwrap_or_default();
    // Layers that were built have a suffix, as in `HEX-init`, or an id of other letters.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !is_hex(chain, 64) || cache.is_empty() || !cache.bytes().all(plain) {
        return Err(TransferError::Malformed { what: format!("{part} has no id") });
    }
    Ok((split(driver, chain), format!("{driver}/{cache}/diff")))
}
