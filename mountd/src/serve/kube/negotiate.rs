//! Media types: what a client accepts, and what it sends.

use serde_json::Value;

use super::wire;
use crate::kube::seam::PatchForm;
use crate::kube::status::{Answer, Failure};

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// The objects.
    #[default]
    Objects,
    /// A table.
    Table,
    /// The metadata of the objects.
    Metadata,
    /// Discovery in one document, in this version.
    Discovery(&'static str),
}

/// What begins the advice to programmers in errors of the parser of YAML.
const HINTS: [&str; 3] = ["; use from_", ", set DuplicateKey", ": Nodes {"];

/// The media types of discovery in one document.
const DISCOVERIES: [&str; 2] = ["v2", "v2beta1"];

impl Shape {
    /// The media type of an answer.
    #[must_use]
    pub fn media_type(self) -> String {
        match self {
            Self::Discovery(version) => format!(
                "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            ),
            _ => "application/json".to_owned(),
        }
    }

    /// The first form of an `Accept` header that this server has; `wanted` says which of the
    /// special ones fit the request.
    ///
    /// # Errors
    /// Not acceptable: the client takes neither JSON nor anything.
    pub fn choose(accept: &str, wanted: impl Fn(Self) -> bool) -> Answer<Self> {
        if accept.trim().is_empty() {
            return Ok(Self::Objects);
        }
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            if !matches!(name, "application/json" | "application/*" | "*/*") {
                continue;
            }
            let parts: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let value = |wanted: &str| {
                parts.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| *value)
            };
            let shape = match (value("as"), value("g"), value("v")) {
                ("", ..) => Some(Self::Objects),
                ("Table", "meta.k8s.io", "v1") => Some(Self::Table),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                    Some(Self::Metadata)
                }
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", version) => {
                    DISCOVERIES.into_iter().find(|known| *known == version).map(Self::Discovery)
                }
                _ => None,
            };
            if let Some(shape) = shape.filter(|shape| *shape == Self::Objects || wanted(*shape)) {
                return Ok(shape);
            }
        }
        let text = "only the following media types are accepted: application/json";
        Err(Failure::new(406, "NotAcceptable", text))
    }
}

/// A media type without its parameters.
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of JSON or YAML, or of one of the kinds that [`wire`] reads.
///
/// # Errors
/// An unsupported media type, a body that cannot be parsed.
pub fn parse(media_type: &str, bytes: &[u8]) -> Answer<Value> {
    match bare(media_type) {
        "" | "application/json" => json(bytes),
        wire::MEDIA_TYPE => wire::parse(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        _ => {
            let text = "the body of the request was in an unknown format - accepted media types \
                        include: application/json, application/yaml";
            Err(Failure::new(415, "UnsupportedMediaType", text))
        }
    }
}

/// Reads a patch and its form.
///
/// # Errors
/// As [`parse`].
pub fn parse_patch(media_type: &str, bytes: &[u8]) -> Answer<(PatchForm, Value)> {
    let Some(form) = PatchForm::of_media_type(bare(media_type)) else {
        let text = format!(
            "the body of the request was in an unknown format {media_type:?} - accepted media \
             types include: application/json-patch+json, application/merge-patch+json, \
             application/strategic-merge-patch+json, application/apply-patch+yaml"
        );
        return Err(Failure::new(415, "UnsupportedMediaType", text));
    };
    let is_yaml = form == PatchForm::Apply;
    Ok((form, if is_yaml { yaml(bytes)? } else { json(bytes)? }))
}

fn json(bytes: &[u8]) -> Answer<Value> {
    let failed = |error| Failure::bad_request(format!("couldn't parse the body as JSON: {error}"));
    serde_json::from_slice(bytes).map_err(failed)
}

fn yaml(bytes: &[u8]) -> Answer<Value> {
    // JSON is YAML, and is read faster by its own parser.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    serde_saphyr::from_slice(bytes).map_err(|error: serde_saphyr::Error| {
        // Behind the first line are parts of the body, and behind the hints what a programmer does.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let end = HINTS.iter().filter_map(|hint| line.find(hint)).min().unwrap_or(line.len());
        let line = line.get(..end).unwrap_or_default();
        Failure::bad_request(format!("couldn't parse the body as YAML: {line}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_fits_is_chosen() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                       application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let any = |_| true;
        assert_eq!(Shape::choose(kubectl, any), Ok(Shape::Table));
        assert_eq!(Shape::choose(kubectl, |_| false), Ok(Shape::Objects));
        assert_eq!(Shape::choose("", any), Ok(Shape::Objects));
        let proto = "application/vnd.kubernetes.protobuf";
        assert_eq!(Shape::choose(proto, any).unwrap_err().code, 406);
        assert_eq!(Shape::choose(&format!("{proto}, */*"), any), Ok(Shape::Objects));
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                         application/json";
        assert_eq!(Shape::choose(discovery, any), Ok(Shape::Discovery("v2")));
    }

    #[test]
    fn bodies_are_json_or_yaml() {
        let yaml = parse("application/yaml", b"kind: Pod\nspec: {a: [1, true]}\n").unwrap();
        assert_eq!(yaml["spec"]["a"], serde_json::json!([1, true]));
        assert_eq!(parse("application/json; charset=utf-8", b"{}").unwrap(), serde_json::json!({}));
        assert_eq!(parse("application/json", b"{").unwrap_err().code, 400);
        assert_eq!(parse("application/cbor", b"{}").unwrap_err().code, 415);
    }
}
