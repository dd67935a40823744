//! What a volume or a snapshot was made for, in its labels: they are written together with it.
//!
//! The labels begin with `lamina.dev/`, so that a copy does not have them.

use std::collections::BTreeMap;

use laminafs::service::volumes::Volume;
use laminafs::types::{Digest, VolumeName};
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Outcome};

/// The label with the name of the request.
pub const NAME: &str = "lamina.dev/csi-name";
/// The label with the rest of the request.
const REQUEST: &str = "lamina.dev/csi-request";
/// The label of a snapshot with the id of its group, which no other group ever has.
pub const GROUP: &str = "lamina.dev/csi-group";

/// Where the content of a new volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The id of a snapshot.
    Snapshot(String),
    /// The id of a volume.
    Volume(String),
}

/// What a volume was requested with, as far as a repetition has to agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The parameters, without those about the claim.
    pub parameters: BTreeMap<String, String>,
    /// The parameters that may change later, as they were at first.
    pub mutable: BTreeMap<String, String>,
    /// Whether the volume is a device.
    pub is_block: bool,
    /// The type of the file system.
    pub fs_type: String,
    /// The source of the content.
    pub source: Option<Source>,
}

impl Request {
    /// The labels of the volume for the name of a request.
    ///
    /// # Errors
    /// `INTERNAL` if the request cannot be written as JSON.
    pub fn labels(&self, name: &str) -> Outcome<BTreeMap<String, String>> {
        let text =
            serde_json::to_string(self).map_err(|error| Fault::internal(error.to_string()))?;
        Ok([(NAME.to_owned(), name.to_owned()), (REQUEST.to_owned(), text)].into())
    }

    /// The request that a volume was made for. `None` for one that was made in another way.
    #[must_use]
    pub fn of(volume: &Volume) -> Option<Self> {
        serde_json::from_str(volume.labels.get(REQUEST)?).ok()
    }
}

/// Whether a request made the volume or the snapshot. What was restored from a backup under another
/// name has the labels too, and is the administrator's.
#[must_use]
pub fn is_requested(volume: &Volume) -> bool {
    let Some(name) = volume.labels.get(NAME) else { return false };
    let own = match (volume.origin.is_empty(), group(volume)) {
        (true, _) => volume_name(name),
        (false, None) => snapshot_name(name),
        (false, Some(_)) => group_name(name),
    };
    own.is_ok_and(|own| own == volume.name)
}

/// The name of the request that made the volume or took the snapshot.
#[must_use]
pub fn request_of(volume: &Volume) -> Option<&str> {
    volume.labels.get(NAME).map(String::as_str).filter(|_| is_requested(volume))
}

fn hash(text: &str) -> String {
    Digest::sha256(text.as_bytes()).hex().chars().take(32).collect()
}

/// The name of the volume for the name of a request: the same, if it can be.
///
/// # Errors
/// `INTERNAL`.
pub fn volume_name(name: &str) -> Outcome<VolumeName> {
    match name.parse() {
        Ok(name) => Ok(name),
        Err(_) => hashed("csi-", name),
    }
}

/// The name of the snapshot for the name of a request.
///
/// # Errors
/// `INTERNAL`.
pub fn snapshot_name(name: &str) -> Outcome<VolumeName> {
    hashed("csi-", name)
}

/// The name of the snapshots of a group for the name of a request.
///
/// # Errors
/// `INTERNAL`.
pub fn group_name(name: &str) -> Outcome<VolumeName> {
    hashed("csi-group-", name)
}

fn hashed(begin: &str, name: &str) -> Outcome<VolumeName> {
    let name = format!("{begin}{}", hash(name)).parse();
    name.map_err(|error| Fault::internal(format!("{error}")))
}

/// The id of the group that a snapshot belongs to.
#[must_use]
pub fn group(snapshot: &Volume) -> Option<&str> {
    snapshot.labels.get(GROUP).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_requests_become_names_of_volumes() {
        assert_eq!(volume_name("pvc-1").unwrap().as_str(), "pvc-1");
        let odd = volume_name("a/../b\n").unwrap();
        assert!(odd.as_str().starts_with("csi-") && odd.as_str().len() == 36, "{odd}");
        assert_eq!(odd, volume_name("a/../b\n").unwrap());
        assert_ne!(odd, volume_name("a/../b").unwrap());
    }
}
