//! Writes `definitions.json.zst`: the definitions of the Kubernetes types that Lamina serves.
//!
//! The types come from `k8s-openapi`, what it leaves out from `marks.txt`, and the kinds of
//! `snapshot.storage.k8s.io` from `snapshot.json`. The program embeds the file and does without
//! `k8s-openapi`, since schemars makes it slow to build: 92 seconds for the types, against none.
//!
//! ```text
//! kube-schema FILE            writes FILE
//! kube-schema --check FILE    compares FILE with what would be written
//! ```

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The kinds that have a list.
const KINDS: [&str; 15] = [
    "ConfigMap",
    "CSIDriver",
    "CSINode",
    "Event",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "Secret",
    "StorageClass",
    "VolumeAttributesClass",
    "VolumeSnapshot",
    "VolumeSnapshotClass",
    "VolumeSnapshotContent",
];

/// Compressed once and read at each start of a server: slow to write is of no account.
const LEVEL: i32 = 19;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [path] => {
            fs::write(path, zstd::encode_all(text()?.as_bytes(), LEVEL)?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["--check", path] => {
            let there = zstd::decode_all(fs::read(path)?.as_slice())?;
            if there == text()?.as_bytes() {
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("{path} differs from what k8s-openapi, marks.txt and snapshot.json give");
            Ok(ExitCode::FAILURE)
        }
        _ => {
            eprintln!("usage: kube-schema [--check] FILE");
            Ok(ExitCode::from(2))
        }
    }
}

/// The file as text: `definitions` by name, and `go`, the Go type of fields by `NAME.FIELD`.
fn text() -> Result<String, Box<dyn Error>> {
    let mut definitions = types();
    let Value::Object(snapshot) = serde_json::from_str(include_str!("../snapshot.json"))? else {
        return Err("snapshot.json is no object".into());
    };
    definitions.extend(snapshot);
    lists(&mut definitions);
    let mut go = Map::new();
    for line in include_str!("../marks.txt").lines().filter(|line| !line.starts_with('#')) {
        mark(line, &mut definitions, &mut go).ok_or_else(|| format!("no such place: {line}"))?;
    }
    Ok(serde_json::to_string(&json!({ "definitions": definitions, "go": go }))?)
}

/// The definitions of all types that the served kinds reach.
fn types() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft07().into_generator();
    macro_rules! add {
        ($($kind:ty),* $(,)?) => {
            $( generator.subschema_for::<$kind>(); )*
        };
    }
    add!(
        core::ConfigMap,
        core::Event,
        core::Namespace,
        core::Node,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        core::Pod,
        core::Secret,
        storage::CSIDriver,
        storage::CSINode,
        storage::StorageClass,
        storage::VolumeAttributesClass,
    );
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::WatchEvent<RawExtension>>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::ListMeta>();
    let mut definitions = generator.take_definitions(true);
    for schema in definitions.values_mut() {
        // No manifest needs it: Kubernetes takes absent metadata for empty ones.
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|name| name != "metadata");
            if required.is_empty() {
                schema.as_object_mut().map(|fields| fields.remove("required"));
            }
        }
        plain_references(schema);
    }
    let text = |format: Option<&str>, of: &mut Value| {
        let description = of["description"].take();
        *of = json!({ "type": "string", "description": description });
        if let Some(format) = format {
            of["format"] = format.into();
        }
    };
    text(None, &mut definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]);
    text(
        Some("int-or-string"),
        &mut definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"],
    );
    definitions
}

/// Turns each `allOf` of one reference into the reference, as Kubernetes has it in Swagger 2.0.
fn plain_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(all)) = fields.remove("allOf") {
                fields.extend(all.into_iter().filter_map(|one| one.as_object().cloned()).flatten());
            }
            fields.values_mut().for_each(plain_references);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_references),
        _ => {}
    }
}

/// Adds the list kind of each kind: `k8s-openapi` has no schema of its `List`.
fn lists(definitions: &mut Map<String, Value>) {
    let is_kind = |schema: &Value| schema.pointer("/properties/metadata/$ref").is_some();
    let known = |name: &str| KINDS.iter().any(|kind| name.ends_with(&format!(".v1.{kind}")));
    let names: Vec<String> = definitions
        .iter()
        .filter(|(name, schema)| known(name) && is_kind(schema))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        let kind = name.rsplit('.').next().unwrap_or_default();
        let field = |of: &str| definitions[&name]["properties"][of].clone();
        let list = json!({
            "description": format!("{kind}List is a list of {kind} objects."),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": field("apiVersion"),
                "items": {
                    "type": "array",
                    "description": "items is the list of objects.",
                    "items": { "$ref": format!("#/definitions/{name}") },
                },
                "kind": field("kind"),
                "metadata": {
                    "$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
                    "description": "Standard list metadata.",
                },
            },
        });
        definitions.insert(format!("{name}List"), list);
    }
}

/// Carries one line of `marks.txt` over; `None` if its type or field does not exist.
fn mark(
    line: &str,
    definitions: &mut Map<String, Value>,
    go: &mut Map<String, Value>,
) -> Option<()> {
    let mut words = line.split(' ');
    let place = words.next()?;
    let full = format!("io.k8s.{place}");
    let target = if definitions.contains_key(&full) {
        definitions.get_mut(&full)?
    } else {
        let (name, field) = full.rsplit_once('.')?;
        definitions.get_mut(name)?.get_mut("properties")?.get_mut(field)?
    };
    for word in words {
        let (word, value) = word.split_once('=')?;
        let list = || value.split(',').map(Value::from).collect::<Value>();
        let (name, value) = match word {
            "go" => {
                go.insert(full.clone(), value.into());
                continue;
            }
            "list" => ("x-kubernetes-list-type", value.into()),
            "map" => ("x-kubernetes-map-type", value.into()),
            "keys" => ("x-kubernetes-list-map-keys", list()),
            "merge" => ("x-kubernetes-patch-merge-key", value.into()),
            "strategy" => ("x-kubernetes-patch-strategy", value.into()),
            "default" => ("default", serde_json::from_str(value).ok()?),
            "enum" => ("enum", list()),
            _ => return None,
        };
        // The values of a list's items stand with the items.
        let target = match target.get("items") {
            Some(_) if name == "enum" => target.get_mut("items")?,
            _ => &mut *target,
        };
        target.as_object_mut()?.insert(name.to_owned(), value);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_file_is_what_the_types_give() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/kube/schema/definitions.json.zst");
        let there = zstd::decode_all(std::fs::read(path).unwrap().as_slice()).unwrap();
        assert_eq!(String::from_utf8(there).unwrap(), super::text().unwrap());
    }
}
