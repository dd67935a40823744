//! The JSON documents of images: layouts, indexes and manifests of OCI (image-spec 1.1), the list
//! in a docker-archive, and the media types of layers in Lamina's own form.
//!
//! The same types are used for reading and for writing. A field that other programs omit is
//! optional here; the reader of a document checks for the fields that it needs. Configurations have
//! no type: an image keeps the bytes of its configuration, and a changed configuration keeps every
//! field that is unknown here.
//!
//! Fields are declared, and so written, in the order of their names. Manifests keep the digest that
//! earlier versions gave them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::Digest;

/// The media type of an index.
pub const INDEX_TYPE: &str = "application/vnd.lamina.layer.index.v1+zstd";
/// The media type of the data blob that belongs to the index blob before it.
pub const DATA_TYPE: &str = "application/vnd.lamina.layer.data.v1";

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) const INDEXES: [&str; 2] =
    [INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
pub(crate) const MANIFESTS: [&str; 2] =
    [MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

pub(crate) const NAME_CONTAINERD: &str = "io.containerd.image.name";
pub(crate) const NAME_OCI: &str = "org.opencontainers.image.ref.name";
/// The annotation of attestation manifests, which buildkit stores next to the manifests of images.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The `schemaVersion` of indexes and manifests.
const SCHEMA: u32 = 2;

/// The file `oci-layout`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layout {
    pub(crate) image_layout_version: String,
}

/// The file `index.json`, or an index that it refers to.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    media_type: Option<String>,
    schema_version: Option<u32>,
}

/// The manifest of an image.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    media_type: Option<String>,
    schema_version: Option<u32>,
}

/// A document that a registry may return for an image: an index or a manifest.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
}

/// A reference to a blob.
#[derive(Serialize, Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    pub(crate) size: Option<u64>,
}

/// The platform that an image runs on.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) architecture: Option<String>,
    pub(crate) os: Option<String>,
    pub(crate) variant: Option<String>,
}

/// An image in the list `manifest.json` of a docker-archive.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Option<Vec<String>>,
}

/// The part of a configuration that lists the layers.
#[derive(Deserialize)]
pub(crate) struct Config {
    pub(crate) rootfs: Option<RootFs>,
}

/// The layers of a configuration.
#[derive(Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(crate) diff_ids: Option<Vec<String>>,
}

impl RootFs {
    pub(crate) fn new(diff_ids: Vec<String>) -> Self {
        Self { kind: Some("layers".to_owned()), diff_ids: Some(diff_ids) }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self { image_layout_version: "1.0.0".to_owned() }
    }
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        let media_type = Some(INDEX.to_owned());
        Self { schema_version: Some(SCHEMA), media_type, manifests: Some(manifests) }
    }
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = Some(MANIFEST.to_owned());
        let (config, layers) = (Some(config), Some(layers));
        Self { schema_version: Some(SCHEMA), media_type, config, layers }
    }
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: &Digest, size: u64) -> Self {
        Self {
            media_type: Some(media_type.to_owned()),
            digest: digest.to_string(),
            size: Some(size),
            platform: None,
            annotations: None,
        }
    }

    /// Returns a copy of this descriptor with a name.
    pub(crate) fn named(&self, name: &str) -> Self {
        let name = [(NAME_OCI.to_owned(), name.to_owned())];
        Self { annotations: Some(name.into_iter().collect()), ..self.clone() }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&String> {
        self.annotations.as_ref()?.get(key)
    }

    // The annotation of containerd holds the whole reference; the annotation of OCI often holds
    // only a tag.
    pub(crate) fn name(&self) -> Option<&String> {
        self.annotation(NAME_CONTAINERD).or_else(|| self.annotation(NAME_OCI))
    }

    pub(crate) fn is_index(&self) -> bool {
        self.media_type.as_deref().is_some_and(|kind| INDEXES.contains(&kind))
    }

    // Signatures, attestations and other artifacts are listed in the same index.
    pub(crate) fn is_image(&self) -> bool {
        let known = self.media_type.as_deref().is_none_or(|kind| MANIFESTS.contains(&kind));
        known && self.annotation(REFERENCE_TYPE).is_none() || self.is_index()
    }
}

/// Whether a manifest has a layer in Lamina's own form or cannot be parsed.
pub(crate) fn is_native(raw: &[u8]) -> bool {
    serde_json::from_slice::<Manifest>(raw).map_or(true, |manifest| {
        let mut kinds = manifest.layers.iter().flatten().map(|one| one.media_type.as_deref());
        kinds.any(|kind| kind == Some(INDEX_TYPE))
    })
}
