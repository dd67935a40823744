//! The OpenAPI documents: version 2 for older clients, version 3 by group and version.
//!
//! `kubectl` finds a kind by `x-kubernetes-group-version-kind`, on its definition and on the
//! operations. Each document is built at its first use, and kept as text: the tree of a document
//! takes ten times the memory, and is of no more use.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::definitions::{Definitions, REFERENCE};
use super::kinds::{KINDS, Kind};
use super::operations::{Operation, Parameter, paths_of, tag};
use super::protobuf;

const GVK: &str = "x-kubernetes-group-version-kind";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const COMPONENT: &str = "#/components/schemas/";
/// The version of Kubernetes whose types these are.
const VERSION: &str = "v1.36.0";

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

static VERSION_2: LazyLock<String> = LazyLock::new(|| version_2().to_string());
static VERSION_2_PROTOBUF: LazyLock<Vec<u8>> = LazyLock::new(|| protobuf::document(&version_2()));
static VERSION_3: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let roots: BTreeSet<String> = KINDS.iter().map(Kind::root).collect();
    roots.into_iter().map(|root| (root.clone(), version_3(&root).to_string())).collect()
});

/// The media types by which clients ask for the protobuf of version 2.
const PROTOBUF: [&str; 2] = ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", ANSWER];

/// The `Content-Type` of the protobuf. It is not what older clients ask for: they refuse an answer
/// whose media type has an `@`.
const ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document, as it is sent.
#[derive(Debug)]
pub struct Document {
    /// The `Content-Type`.
    pub media_type: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

/// The document of a path below `/openapi/`, in the first form of an `Accept` header that it has.
/// `None` if there is no such document, or no such form of it.
pub fn openapi(path: &str, accept: &str) -> Option<Document> {
    let path = path.trim_matches('/');
    let wanted = accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim());
    for media_type in wanted {
        match media_type {
            _ if path == "v2" && PROTOBUF.contains(&media_type) => {
                let body = Cow::Borrowed(openapi_v2_protobuf());
                return Some(Document { media_type: ANSWER, body });
            }
            "" | "*/*" | "application/*" | "application/json" => {
                let body = match path.strip_prefix("v3") {
                    _ if path == "v2" => Cow::Borrowed(openapi_v2().as_bytes()),
                    Some("") => Cow::Owned(openapi_v3_index().to_string().into_bytes()),
                    Some(rest) => Cow::Borrowed(openapi_v3(rest.strip_prefix('/')?)?.as_bytes()),
                    None => return None,
                };
                return Some(Document { media_type: "application/json", body });
            }
            _ => {}
        }
    }
    None
}

/// The document of `/openapi/v2`, as JSON.
pub(super) fn openapi_v2() -> &'static str {
    &VERSION_2
}

/// The document of `/openapi/v2` as protobuf.
pub(super) fn openapi_v2_protobuf() -> &'static [u8] {
    &VERSION_2_PROTOBUF
}

/// The document of `/openapi/v3`: where each group and version has its own.
///
/// Clients keep a document as long as its hash is the same.
pub(super) fn openapi_v3_index() -> Value {
    let paths: Map<String, Value> = VERSION_3
        .iter()
        .map(|(root, document)| {
            let mut hasher = DefaultHasher::new();
            document.hash(&mut hasher);
            let url = format!("/openapi/v3/{root}?hash={:016X}", hasher.finish());
            (root.clone(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// The document of a group and version, as JSON: `api/v1` or `apis/GROUP/v1`, as the index names
/// them, also `v1` or `GROUP/v1`.
pub(super) fn openapi_v3(group_version: &str) -> Option<&'static str> {
    let root = KINDS.iter().find(|kind| kind.api_version() == group_version).map(Kind::root);
    VERSION_3.get(root.as_deref().unwrap_or(group_version)).map(String::as_str)
}

fn gvk(kind: &Kind) -> Value {
    json!({ "group": kind.group, "kind": kind.kind, "version": "v1" })
}

/// The definition with the group, version and kind of what it defines.
fn named(name: &str, schema: &Value) -> Value {
    let mut schema = schema.clone();
    let all: Vec<Value> = match name.strip_prefix(META).and_then(|rest| rest.strip_prefix('.')) {
        Some("Status") => vec![json!({ "group": "", "kind": "Status", "version": "v1" })],
        Some(kind @ ("DeleteOptions" | "WatchEvent")) => {
            let groups: BTreeSet<&str> = KINDS.iter().map(|kind| kind.group).collect();
            let one = |group| json!({ "group": group, "kind": kind, "version": "v1" });
            groups.into_iter().map(one).collect()
        }
        _ => KINDS.iter().filter_map(|kind| gvk_of(name, kind)).collect(),
    };
    if let (false, Some(fields)) = (all.is_empty(), schema.as_object_mut()) {
        fields.insert(GVK.to_owned(), all.into());
    }
    schema
}

fn gvk_of(name: &str, kind: &Kind) -> Option<Value> {
    let suffix = name.strip_prefix(kind.definition().as_str())?;
    let name = format!("{}{suffix}", kind.kind);
    let is_it = suffix.is_empty() || suffix == "List";
    is_it.then(|| json!({ "group": kind.group, "kind": name, "version": "v1" }))
}

fn version_2() -> Value {
    let definitions = &Definitions::all().by_name;
    let definitions: Map<String, Value> =
        definitions.iter().map(|(name, schema)| (name.clone(), named(name, schema))).collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths(|_| true, operation_2, parameter_2),
        "definitions": definitions,
    })
}

fn version_3(root: &str) -> Value {
    let of_root = |kind: &Kind| kind.root() == root;
    let mut names = BTreeSet::new();
    for kind in KINDS.iter().filter(|kind| of_root(kind)) {
        reach(&kind.definition(), &mut names);
        reach(&format!("{}List", kind.definition()), &mut names);
    }
    for name in ["DeleteOptions", "Patch", "Status", "WatchEvent"] {
        reach(&format!("{META}.{name}"), &mut names);
    }
    let schemas: Map<String, Value> = names
        .into_iter()
        .filter_map(|name| Definitions::all().named(&name))
        .map(|(name, schema)| (name.to_owned(), component(name, named(name, schema))))
        .collect();
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths(of_root, operation_3, parameter_3),
        "components": { "schemas": schemas },
    })
}

/// Adds the definition and all that it refers to.
fn reach(name: &str, names: &mut BTreeSet<String>) {
    let Some((_, schema)) = Definitions::all().named(name) else { return };
    if names.insert(name.to_owned()) {
        references(schema, names);
    }
}

fn references(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some((name, _)) = Definitions::all().target(schema) {
                reach(name, names);
            }
            fields.values().for_each(|field| references(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

/// The definition as version 3 has it.
fn component(name: &str, mut schema: Value) -> Value {
    let either = |first: &str| json!([{ "type": first }, { "type": "string" }]);
    let (one_of, is_type) = match name.rsplit('.').next() {
        Some("Quantity") => (either("number"), false),
        Some("IntOrString") => (either("integer"), false),
        _ => (Value::Null, true),
    };
    if let (false, Some(fields)) = (is_type, schema.as_object_mut()) {
        fields.remove("type");
        fields.insert("oneOf".to_owned(), one_of);
    }
    point(&mut schema);
    schema
}

/// Points the references to components. What stands next to a reference is of no effect in
/// version 3, so that a reference with a description becomes a part of `allOf`.
fn point(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str);
            let target = target.and_then(|target| target.strip_prefix(REFERENCE));
            if let Some(name) = target {
                let reference = Value::from(format!("{COMPONENT}{name}"));
                fields.remove("$ref");
                if fields.is_empty() {
                    fields.insert("$ref".to_owned(), reference);
                } else {
                    fields.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
                }
            } else {
                fields.values_mut().for_each(point);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point),
        _ => {}
    }
}

fn paths(
    takes: impl Fn(&Kind) -> bool,
    render: impl Fn(&Kind, &Operation) -> Value,
    parameter: impl Fn(&Parameter) -> Value,
) -> Map<String, Value> {
    let mut all = Map::new();
    for kind in KINDS.iter().filter(|kind| takes(kind)) {
        for path in paths_of(kind) {
            let mut item = Map::new();
            for operation in &path.operations {
                item.insert(operation.method.to_owned(), render(kind, operation));
            }
            if !path.parameters.is_empty() {
                let parameters = path.parameters.iter().map(&parameter).collect();
                item.insert("parameters".to_owned(), Value::Array(parameters));
            }
            all.insert(path.path, item.into());
        }
    }
    all
}

/// What both versions say of an operation.
fn operation_base(kind: &Kind, operation: &Operation) -> Map<String, Value> {
    let tag = format!("{}_v1", tag(kind).to_lowercase());
    let base = json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [tag],
        "x-kubernetes-action": operation.action,
        GVK: gvk(kind),
    });
    if let Value::Object(base) = base { base } else { Map::new() }
}

fn operation_2(kind: &Kind, operation: &Operation) -> Value {
    let mut all = operation_base(kind, operation);
    let reference = |name: &str| json!({ "$ref": format!("{REFERENCE}{name}") });
    let mut parameters: Vec<Value> = operation.parameters.iter().map(parameter_2).collect();
    if let Some(body) = &operation.body {
        let required = operation.method != "delete";
        parameters.push(json!({
            "in": "body", "name": "body", "required": required, "schema": reference(body),
        }));
    }
    let consumes = if operation.method == "patch" { patches(kind) } else { vec!["*/*"] };
    let schema = match &operation.answer {
        Some(name) => reference(name),
        None => json!({ "type": "string" }),
    };
    let answer = json!({ "description": "OK", "schema": schema });
    let codes: Map<String, Value> =
        operation.codes.iter().map(|code| ((*code).to_owned(), answer.clone())).collect();
    all.insert("consumes".to_owned(), json!(consumes));
    all.insert("produces".to_owned(), json!(["application/json"]));
    all.insert("schemes".to_owned(), json!(["https"]));
    all.insert("parameters".to_owned(), parameters.into());
    all.insert("responses".to_owned(), codes.into());
    all.into()
}

fn operation_3(kind: &Kind, operation: &Operation) -> Value {
    let mut all = operation_base(kind, operation);
    let media = |name: &str, types: &[&str]| -> Map<String, Value> {
        let schema = json!({ "schema": { "$ref": format!("{COMPONENT}{name}") } });
        types.iter().map(|media| ((*media).to_owned(), schema.clone())).collect()
    };
    if let Some(body) = &operation.body {
        let types = if operation.method == "patch" { patches(kind) } else { vec!["*/*"] };
        let body = json!({ "content": media(body, &types) });
        all.insert("requestBody".to_owned(), body);
    }
    let content = match &operation.answer {
        Some(name) => media(name, &["application/json"]).into(),
        None => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    let answer = json!({ "description": "OK", "content": content });
    let codes: Map<String, Value> =
        operation.codes.iter().map(|code| ((*code).to_owned(), answer.clone())).collect();
    let parameters: Vec<Value> = operation.parameters.iter().map(parameter_3).collect();
    all.insert("parameters".to_owned(), parameters.into());
    all.insert("responses".to_owned(), codes.into());
    all.into()
}

/// The patches that a kind takes: a custom resource takes no strategic merge.
fn patches(kind: &Kind) -> Vec<&'static str> {
    let takes = |media: &&str| !kind.is_custom() || !media.contains("strategic");
    PATCHES.into_iter().filter(takes).collect()
}

fn parameter_2(parameter: &Parameter) -> Value {
    let Parameter { name, place, of, description } = *parameter;
    let mut all = json!({
        "name": name, "in": place, "type": of, "description": description, "uniqueItems": true,
    });
    require(&mut all, place);
    all
}

fn parameter_3(parameter: &Parameter) -> Value {
    let Parameter { name, place, of, description } = *parameter;
    let schema = json!({ "type": of, "uniqueItems": true });
    let mut all =
        json!({ "name": name, "in": place, "description": description, "schema": schema });
    require(&mut all, place);
    all
}

fn require(parameter: &mut Value, place: &str) {
    if let (true, Some(fields)) = (place == "path", parameter.as_object_mut()) {
        fields.insert("required".to_owned(), true.into());
    }
}
