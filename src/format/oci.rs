//! Documents of OCI as JSON: layouts, indexes, manifests, and the media types of layers in our own
//! form. What they state is checked by whoever reads them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The media type of an index.
pub const INDEX_TYPE: &str = "application/vnd.lamina.layer.index.v1+zstd";
/// The media type of the data that belongs to the index before it.
pub const DATA_TYPE: &str = "application/vnd.lamina.layer.data.v1";

pub(crate) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
pub(crate) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

pub(crate) const NAME_CONTAINERD: &str = "io.containerd.image.name";
pub(crate) const NAME_OCI: &str = "org.opencontainers.image.ref.name";
/// What buildkit puts beside the manifests of images, and is none.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layout {
    pub(crate) image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
}

/// What a registry may answer: an index or a manifest.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: Option<String>,
    pub(crate) digest: String,
    pub(crate) size: Option<u64>,
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) architecture: Option<String>,
    pub(crate) os: Option<String>,
    pub(crate) variant: Option<String>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&String> {
        self.annotations.as_ref()?.get(key)
    }

    // containerd's is the whole reference; the other one often only a tag.
    pub(crate) fn name(&self) -> Option<&String> {
        self.annotation(NAME_CONTAINERD).or_else(|| self.annotation(NAME_OCI))
    }

    pub(crate) fn is_index(&self) -> bool {
        self.media_type.as_deref().is_some_and(|kind| INDEXES.contains(&kind))
    }

    // Signatures, attestations and other artifacts stand in the same index.
    pub(crate) fn is_image(&self) -> bool {
        let known = self.media_type.as_deref().is_none_or(|kind| MANIFESTS.contains(&kind));
        known && self.annotation(REFERENCE_TYPE).is_none() || self.is_index()
    }
}

/// Whether a manifest has a layer in our own form, or cannot be read.
pub(crate) fn is_native(raw: &[u8]) -> bool {
    serde_json::from_slice::<Manifest>(raw).map_or(true, |manifest| {
        let mut kinds = manifest.layers.iter().flatten().map(|one| one.media_type.as_deref());
        kinds.any(|kind| kind == Some(INDEX_TYPE))
    })
}
