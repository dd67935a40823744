//! Tests of the documents and of the checks of fields.

use serde_json::{Value, json};

use super::kinds::KINDS;
use super::openapi::{openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_index};
use super::*;

/// A manifest of the kind with this spec.
fn object(kind: &str, spec: Value) -> Value {
    let api_version = kind_named(kind).unwrap().api_version();
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "x" }, "spec": spec })
}

/// The document of version 2.
fn version_2() -> Value {
    serde_json::from_str(openapi_v2()).unwrap()
}

/// The document of version 3 of a group and version.
fn version_3(group_version: &str) -> Value {
    serde_json::from_str(openapi_v3(group_version).unwrap()).unwrap()
}

#[test]
fn every_kind_has_a_definition_a_list_and_a_group() {
    let version_2 = version_2();
    for kind in &KINDS {
        for name in [kind.kind.to_owned(), format!("{}List", kind.kind)] {
            let suffix = name.strip_prefix(kind.kind).unwrap();
            let definition = format!("{}{suffix}", kind.definition());
            let schema = &version_2["definitions"][&definition];
            let gvk = json!([{ "group": kind.group, "kind": name, "version": "v1" }]);
            assert_eq!(schema["x-kubernetes-group-version-kind"], gvk);
            assert!(schema["description"].is_string(), "{definition}");
        }
        let document = version_3(&kind.api_version());
        assert!(document["components"]["schemas"].get(kind.definition()).is_some());
        assert_eq!(openapi_v3(&kind.root()), openapi_v3(&kind.api_version()));
    }
    assert_eq!(openapi_v3("apps/v1"), None);
}

/// Collects the references of a document that lead nowhere.
fn dangling(at: &Value, document: &Value, found: &mut Vec<String>) {
    match at {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                // Definitions have dots, and no character that a pointer escapes.
                if document.pointer(target.trim_start_matches('#')).is_none() {
                    found.push(target.to_owned());
                }
            }
            fields.values().for_each(|value| dangling(value, document, found));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(item, document, found)),
        _ => {}
    }
}

#[test]
fn no_reference_dangles() {
    let mut found = Vec::new();
    dangling(&version_2(), &version_2(), &mut found);
    for root in ["api/v1", "apis/storage.k8s.io/v1", "apis/snapshot.storage.k8s.io/v1"] {
        let document = version_3(root);
        dangling(&document, &document, &mut found);
        assert!(!document.to_string().contains("#/definitions/"));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn patch_operations_have_the_parameters_that_kubectl_asks_for() {
    for (version, document) in [(2, version_2()), (3, version_3("api/v1"))] {
        let path = &document["paths"]["/api/v1/persistentvolumes/{name}"];
        let patch = &path["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({ "group": "", "kind": "PersistentVolume", "version": "v1" })
        );
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["name"].as_str())
            .collect();
        for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
            assert!(names.contains(&name), "version {version}: {name}");
        }
        assert_eq!(path["parameters"][0]["required"], json!(true));
        assert_eq!(patch["operationId"], "patchCoreV1PersistentVolume");
    }
    let path = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/{name}";
    let media = &version_2()["paths"][path]["patch"]["consumes"];
    assert!(!media.to_string().contains("strategic"));
}

#[test]
fn index_names_each_document_by_its_hash() {
    let index = openapi_v3_index();
    let paths = index["paths"].as_object().unwrap();
    let roots: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(roots, ["api/v1", "apis/snapshot.storage.k8s.io/v1", "apis/storage.k8s.io/v1"]);
    for (root, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let hash = url.strip_prefix(&format!("/openapi/v3/{root}?hash=")).unwrap();
        assert_eq!(hash.len(), 16);
    }
    assert_eq!(index, openapi_v3_index());
}

#[test]
fn a_reference_with_a_description_is_part_of_all_of_in_version_3() {
    let core = version_3("v1");
    let schema = |name: &str| core["components"]["schemas"][name].clone();
    let spec = &schema("io.k8s.api.core.v1.PersistentVolume")["properties"]["spec"];
    let target = "#/components/schemas/io.k8s.api.core.v1.PersistentVolumeSpec";
    assert_eq!(spec["allOf"], json!([{ "$ref": target }]));
    assert!(spec.get("$ref").is_none() && spec["description"].is_string());
    let quantity = schema("io.k8s.apimachinery.pkg.api.resource.Quantity");
    assert_eq!(quantity["oneOf"], json!([{ "type": "number" }, { "type": "string" }]));
}

/// The fields of a protobuf message: numbers and bytes. Other wire types have no bytes.
fn decode(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |bytes: &mut &[u8]| {
        let mut value = 0;
        for at in 0.. {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return value;
            }
        }
        value
    };
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let len = match key & 7 {
            0 => {
                varint(&mut bytes);
                0
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(len);
        fields.push((key >> 3, value.to_vec()));
        bytes = rest;
    }
    fields
}

#[test]
fn protobuf_has_every_definition_and_path_of_the_document() {
    let document = decode(openapi_v2_protobuf());
    let field = |number: u64| &document.iter().find(|(at, _)| *at == number).unwrap().1;
    assert_eq!(field(1), b"2.0");
    let names = |bytes: &[u8], number: u64| -> Vec<String> {
        let pairs = decode(bytes).into_iter().filter(|(at, _)| *at == number);
        pairs.map(|(_, pair)| String::from_utf8(decode(&pair)[0].1.clone()).unwrap()).collect()
    };
    let keys = |part: &str| -> Vec<String> {
        version_2()[part].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(field(8), 2), keys("paths"));
    assert_eq!(names(field(9), 1), keys("definitions"));
    // A schema: description 4, required 19, type 22, properties 25, extensions 31.
    let claim = decode(field(9))
        .into_iter()
        .map(|(_, pair)| decode(&pair))
        .find(|pair| pair[0].1 == b"io.k8s.api.core.v1.PersistentVolumeClaim")
        .unwrap();
    let numbers: Vec<u64> = decode(&claim[1].1).into_iter().map(|(at, _)| at).collect();
    assert_eq!(numbers, [4, 22, 25, 31]);
}

#[test]
fn the_cursor_knows_lists_maps_and_keys() {
    let map = |keys: &[&'static str]| ListType::Map(keys.to_vec());
    let rows: [(&str, &[&str], ListType, Option<&str>); 9] = [
        ("Pod", &["spec", "containers"], map(&["name"]), Some("name")),
        (
            "Pod",
            &["spec", "containers", "ports"],
            map(&["containerPort", "protocol"]),
            Some("containerPort"),
        ),
        ("Pod", &["spec", "volumes"], map(&["name"]), Some("name")),
        ("Pod", &["spec", "tolerations"], ListType::Atomic, None),
        ("Pod", &["metadata", "finalizers"], ListType::Set, None),
        ("Pod", &["metadata", "ownerReferences"], map(&["uid"]), Some("uid")),
        ("PersistentVolume", &["spec", "accessModes"], ListType::Atomic, None),
        ("PersistentVolumeClaim", &["status", "conditions"], map(&["type"]), Some("type")),
        ("CSINode", &["spec", "drivers"], map(&["name"]), Some("name")),
    ];
    for (kind, path, list_type, merge_key) in rows {
        let of = Type::of_kind(kind).unwrap().at(path).unwrap();
        assert_eq!(of.list_type(), list_type, "{kind} {path:?}");
        assert_eq!(of.merge_key(), merge_key, "{kind} {path:?}");
    }
    let pod = Type::of_kind("Pod").unwrap();
    assert!(pod.at(&["spec", "nodeSelector"]).unwrap().is_atomic_map());
    assert!(!pod.at(&["metadata", "labels"]).unwrap().is_atomic_map());
    assert!(pod.at(&["metadata", "finalizers"]).unwrap().merges_list());
    assert_eq!(
        pod.at(&["spec", "containers", "ports"]).unwrap().items().unwrap().default_of("protocol"),
        Some(&json!("TCP"))
    );
    // The place says other than the definition: a claim's reference is shared, others are not.
    let volume = Type::of_kind("PersistentVolume").unwrap();
    assert!(!volume.at(&["spec", "claimRef"]).unwrap().is_atomic_map());
    assert!(Type::of_kind("Event").unwrap().at(&["involvedObject"]).unwrap().is_atomic_map());
    assert!(Type::of_kind("Deployment").is_none());
}

#[test]
fn unknown_fields_are_named_with_their_path() {
    let rows = [
        ("PersistentVolume", json!({ "foo": 1 }), "spec.foo"),
        ("PersistentVolume", json!({ "AccessModes": [] }), "spec.AccessModes"),
        ("PersistentVolume", json!({ "hostPath": { "paht": "/" } }), "spec.hostPath.paht"),
        ("Pod", json!({ "containers": [{}, { "imag": "x" }] }), "spec.containers[1].imag"),
        ("VolumeSnapshot", json!({ "source": { "claim": "x" } }), "spec.source.claim"),
        (
            "Pod",
            json!({ "volumes": [{ "projected": { "sources": [{ "secrets": 1 }] } }] }),
            "spec.volumes[0].projected.sources[0].secrets",
        ),
    ];
    for (kind, spec, path) in rows {
        let problems = validate_fields(kind, &object(kind, spec));
        assert_eq!(problems, [FieldProblem::Unknown(path.to_owned())]);
        assert_eq!(problems[0].to_string(), format!("unknown field \"{path}\""));
        assert_eq!(strict_message(kind, &problems, false), None);
        assert_eq!(
            strict_message(kind, &problems, true).unwrap(),
            format!(
                "{kind} in version \"v1\" cannot be handled as a {kind}: \
                 strict decoding error: unknown field \"{path}\""
            )
        );
    }
    let mut top = object("Secret", Value::Null);
    top["metadata"]["label"] = json!({});
    let problems = validate_fields("Secret", &top);
    assert_eq!(
        strict_message("Secret", &problems, true).unwrap(),
        "Secret in version \"v1\" cannot be handled as a Secret: strict decoding error: \
         unknown field \"metadata.label\", unknown field \"spec\""
    );
}

/// Compares what the decoder says of each spec.
fn assert_decode_errors(rows: &[(&str, Value, &str)]) {
    for (kind, spec, message) in rows {
        let problems = validate_fields(kind, &object(kind, spec.clone()));
        let found = strict_message(kind, &problems, false);
        assert_eq!(
            found.unwrap_or_else(|| panic!("{spec}")),
            format!("{kind} in version \"v1\" cannot be handled as a {kind}: {message}")
        );
    }
}

/// Compares what the decoder says of each spec: the value found, the field and its type.
fn assert_type_errors(rows: &[(&str, Value, &str)]) {
    for (kind, spec, words) in rows {
        let words: Vec<&str> = words.split(' ').collect();
        let [value, field, of] = words[..] else { panic!() };
        let message =
            format!("json: cannot unmarshal {value} into Go struct field {field} of type {of}");
        assert_decode_errors(&[(kind, spec.clone(), &message)]);
    }
}

#[test]
fn values_of_the_wrong_type_in_a_volume_are_worded_as_the_decoder_does() {
    const VOLUME: &str = "PersistentVolume";
    assert_type_errors(&[
        (
            VOLUME,
            json!({ "accessModes": "ReadWriteOnce" }),
            "string PersistentVolumeSpec.spec.accessModes []v1.PersistentVolumeAccessMode",
        ),
        (
            VOLUME,
            json!({ "accessModes": [1] }),
            "number PersistentVolumeSpec.spec.accessModes v1.PersistentVolumeAccessMode",
        ),
        (
            VOLUME,
            json!({ "capacity": "1Gi" }),
            "string PersistentVolumeSpec.spec.capacity v1.ResourceList",
        ),
        (
            VOLUME,
            json!({ "hostPath": [] }),
            "array PersistentVolumeSpec.spec.hostPath v1.HostPathVolumeSource",
        ),
        (
            VOLUME,
            json!({ "hostPath": { "path": true } }),
            "bool HostPathVolumeSource.spec.hostPath.path string",
        ),
        (
            VOLUME,
            json!({ "csi": { "readOnly": "true" } }),
            "string CSIPersistentVolumeSource.spec.csi.readOnly bool",
        ),
        (
            VOLUME,
            json!({ "csi": { "volumeAttributes": { "a": 1 } } }),
            "number CSIPersistentVolumeSource.spec.csi.volumeAttributes string",
        ),
        (
            "PersistentVolumeClaim",
            json!({ "volumeMode": {} }),
            "object PersistentVolumeClaimSpec.spec.volumeMode v1.PersistentVolumeMode",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type_in_a_pod_are_worded_as_the_decoder_does() {
    assert_type_errors(&[
        (
            "Pod",
            json!({ "restartPolicy": 1 }),
            "number PodSpec.spec.restartPolicy v1.RestartPolicy",
        ),
        ("Pod", json!({ "nodeSelector": { "a": true } }), "bool PodSpec.spec.nodeSelector string"),
        (
            "Pod",
            json!({ "containers": { "name": "c" } }),
            "object PodSpec.spec.containers []v1.Container",
        ),
        (
            "Pod",
            json!({ "containers": [{ "command": "sleep 1" }] }),
            "string Container.spec.containers.command []string",
        ),
        (
            "Pod",
            json!({ "containers": [{ "ports": [{ "containerPort": "80" }] }] }),
            "string ContainerPort.spec.containers.ports.containerPort int32",
        ),
    ]);
}

#[test]
fn values_that_read_themselves_have_errors_of_their_own() {
    const FORMAT: &str = "quantities must match the regular expression \
                          '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let claim = |size: Value| json!({ "resources": { "requests": { "storage": size } } });
    let port = |port: Value| json!({ "livenessProbe": { "tcpSocket": { "port": port } } });
    assert_decode_errors(&[
        ("PersistentVolumeClaim", claim(json!("1Gb")), FORMAT),
        ("PersistentVolumeClaim", claim(json!("")), FORMAT),
        ("PersistentVolumeClaim", claim(json!(true)), FORMAT),
        ("PersistentVolumeClaim", claim(json!("1K")), "unable to parse quantity's suffix"),
        ("PersistentVolumeClaim", claim(json!("1GiB")), FORMAT),
        (
            "PersistentVolumeClaim",
            claim(json!("1.2.3")),
            "unable to parse numeric part of quantity",
        ),
        (
            "Pod",
            json!({ "containers": [port(json!(true))] }),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            "Pod",
            json!({ "containers": [{ "ports": [{ "containerPort": 3_000_000_000_u32 }] }] }),
            "json: cannot unmarshal number 3000000000 into Go struct field \
             ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
    ]);
}

#[test]
fn values_of_the_right_type_pass() {
    let rows = [
        ("PersistentVolume", json!({ "capacity": { "storage": "1Gi", "other": 5, "e": "1e3" } })),
        ("PersistentVolume", json!({ "capacity": null, "accessModes": null, "hostPath": null })),
        (
            "PersistentVolume",
            json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": [] } } }),
        ),
        (
            "Pod",
            json!({ "containers": [{ "livenessProbe": { "tcpSocket": { "port": "http" } } }] }),
        ),
        ("Pod", json!({ "containers": [{ "livenessProbe": { "tcpSocket": { "port": 80 } } }] })),
        ("Pod", json!({ "volumes": [{ "emptyDir": { "sizeLimit": "0.5Gi" } }] })),
        ("VolumeSnapshot", json!({ "source": { "persistentVolumeClaimName": "c" } })),
    ];
    for (kind, spec) in rows {
        assert_eq!(validate_fields(kind, &object(kind, spec)), []);
    }
    let mut secret = object("Secret", Value::Null);
    secret.as_object_mut().unwrap().remove("spec");
    secret["metadata"]["creationTimestamp"] = json!("2026-11-29T20:34:52Z");
    secret["data"] = json!({ "a": "YQ==", "b": "" });
    assert_eq!(validate_fields("Secret", &secret), []);
    secret["metadata"]["creationTimestamp"] = json!("yesterday");
    secret["data"]["a"] = json!("*");
    assert_eq!(validate_fields("Secret", &secret).len(), 2);
    assert_eq!(validate_fields("Deployment", &json!({ "a": 1 })), []);
}

#[test]
fn custom_resources_are_judged_by_their_schema() {
    const SNAPSHOT: &str = "VolumeSnapshot";
    const CONTENT: &str = "VolumeSnapshotContent";
    let content = |policy: &str, source: Value| {
        json!({
            "driver": "d", "deletionPolicy": policy, "source": source, "volumeSnapshotRef": {},
        })
    };
    let rows = [
        (
            SNAPSHOT,
            json!({ "source": "claim" }),
            "spec.source: Invalid value: \"string\": \
             spec.source in body must be of type object: \"string\"",
        ),
        (SNAPSHOT, json!({}), "spec.source: Required value"),
        (
            SNAPSHOT,
            json!({ "source": {}, "volumeSnapshotClassName": 1 }),
            "spec.volumeSnapshotClassName: Invalid value: \"integer\": \
             spec.volumeSnapshotClassName in body must be of type string: \"integer\"",
        ),
        (
            CONTENT,
            content("Recycle", json!({})),
            "spec.deletionPolicy: Unsupported value: \"Recycle\": \
             supported values: \"Delete\", \"Retain\"",
        ),
        (
            CONTENT,
            content("Retain", json!({ "snapshotHandle": true })),
            "spec.source.snapshotHandle: Invalid value: \"boolean\": \
             spec.source.snapshotHandle in body must be of type string: \"boolean\"",
        ),
    ];
    for (kind, spec, message) in rows {
        let problems = validate_fields(kind, &object(kind, spec));
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found, [message]);
        assert_eq!(strict_message(kind, &problems, true), None);
    }
    let mut sized = object(SNAPSHOT, json!({ "source": {} }));
    for (size, count) in [(json!(5), 0), (json!("5Gi"), 0), (json!(true), 1)] {
        sized["status"] = json!({ "restoreSize": size });
        assert_eq!(validate_fields(SNAPSHOT, &sized).len(), count);
    }
    let mut sized = object(CONTENT, content("Delete", json!({ "volumeHandle": "v" })));
    for (size, count) in [(json!(5), 0), (json!(-5), 1)] {
        sized["status"] = json!({ "restoreSize": size });
        assert_eq!(validate_fields(CONTENT, &sized).len(), count);
    }
}

#[test]
fn each_document_comes_in_the_first_form_that_it_has() {
    const OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    const NEW: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const JSON: &str = "application/json";
    let rows = [
        ("v2", OLD, Some(NEW)),
        ("v2", NEW, Some(NEW)),
        ("v2", JSON, Some(JSON)),
        ("v2", "", Some(JSON)),
        ("v2", "text/html, application/json;q=0.5", Some(JSON)),
        ("v2", "application/json, */*", Some(JSON)),
        ("v2", "text/html", None),
        ("v3", JSON, Some(JSON)),
        ("v3", OLD, None),
        ("v3/api/v1", "*/*", Some(JSON)),
        ("v3/apis/storage.k8s.io/v1", JSON, Some(JSON)),
        ("v3/apis/apps/v1", JSON, None),
        ("v3x", JSON, None),
        ("v4", JSON, None),
        ("", JSON, None),
    ];
    for (path, accept, media_type) in rows {
        let document = openapi(path, accept);
        assert_eq!(document.map(|one| one.media_type), media_type, "{path} as {accept}");
    }
    assert_eq!(openapi("/v2", OLD).unwrap().body, openapi_v2_protobuf());
}

#[test]
fn fields_that_a_body_has_twice_are_named() {
    let rows: [(&str, &[&str]); 8] = [
        ("{}", &[]),
        (r#"{"a": 1, "b": {"a": null}, "c": [true, -1, 1.5, "x"]}"#, &[]),
        (r#"{"a": 1, "a": 1}"#, &["a"]),
        (r#"{"spec": {"x": 1, "y": 2, "x": 3, "x": 4}}"#, &["spec.x", "spec.x"]),
        (r#"{"l": [{}, {"a": 1, "a": 2}]}"#, &["l[1].a"]),
        (r#"{"a": {"b": 1, "b": 2}, "a": {}}"#, &["a.b", "a"]),
        (r#"{"a": 1, "a": "#, &[]),
        ("[", &[]),
    ];
    for (body, expected) in rows {
        let found = duplicate_fields(body.as_bytes());
        let expected: Vec<FieldProblem> =
            expected.iter().map(|path| FieldProblem::Duplicate((*path).to_owned())).collect();
        assert_eq!(found, expected, "{body}");
    }
    let problems = duplicate_fields(br#"{"spec": {"x": 1, "x": 2}}"#);
    assert_eq!(
        strict_message("Pod", &problems, true).unwrap(),
        "Pod in version \"v1\" cannot be handled as a Pod: \
         strict decoding error: duplicate field \"spec.x\""
    );
    let many = format!("{{{}}}", vec!["\"a\":1"; 1000].join(","));
    assert_eq!(duplicate_fields(many.as_bytes()).len(), 20);
}
