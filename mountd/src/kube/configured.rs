//! `apply` as kubectl's client does it: three ways, by what was applied last.
//!
//! The object carries the configuration that was applied last as an annotation. The new one is laid
//! over the object as it is; what the last one had and the new one does not is removed; all else
//! stays as others set it. The annotation has the bytes that kubectl writes, so that both can be
//! used in turn.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::foreign::{adopt, is_foreign};
use super::kinds::Kind;
use super::meta::{map_in, set, set_meta};
use super::objects::{Part, WriteOptions};
use super::schema::{Type, kind_named};
use super::seam::{PatchForm, patched};
use super::status::{Answer, Failure};

/// The annotation with the configuration that was applied last.
pub const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of the fields that this kind of apply sets, whichever program does it: a later
/// server-side apply of kubectl takes over the fields of this name.
pub const MANAGER: &str = "kubectl-client-side-apply";

/// The configuration of a manifest, with itself in the annotation.
#[must_use]
pub fn configuration(kind: &'static Kind, mut object: Value, namespace: &str) -> Value {
    if kind.is_namespaced {
        set_meta(&mut object, "namespace", Some(namespace.into()));
    }
    if let Some(meta) = map_in(&mut object, "metadata")
        && let Some(annotations) = map_in(meta, "annotations")
    {
        set(annotations, LAST, None);
    }
    let text = go_text(&object);
    if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
        set(annotations, LAST, Some(text.into()));
    }
    object
}

/// JSON as Go's encoder writes it, with the characters that mean something in HTML as escapes, and
/// a line feed.
fn go_text(object: &Value) -> String {
    let text = object.to_string();
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped.push('\n');
    escaped
}

/// The configuration that was applied last to an object; `None` if none was.
fn last(current: &Value) -> Option<Answer<Value>> {
    let text = current.get("metadata")?.get("annotations")?.get(LAST)?.as_str()?;
    let failed = |error| Failure::bad_request(format!("annotation {LAST} of the object: {error}"));
    Some(serde_json::from_str(text).map_err(failed))
}

/// Whether `apply` has been used for an object before.
#[must_use]
pub fn was_applied(current: &Value) -> bool {
    last(current).is_some()
}

/// The object that a configuration makes of another one.
///
/// # Errors
/// A configuration that does not fit, and an annotation that is not a configuration.
pub fn apply(kind: &'static Kind, current: &Value, new: &Value) -> Answer<Value> {
    let mut last = last(current).transpose()?.unwrap_or_else(|| json!({}));
    if is_foreign(&last, Some(current)) {
        // What was left out of it when it was applied is not what a new one removes.
        adopt(kind, &mut last);
    }
    let is_custom = kind_named(kind.kind).is_none_or(|kind| kind.is_custom());
    let mut patch = new.clone();
    let form = if is_custom {
        remove_fields(&last, &mut patch, None, false);
        PatchForm::Merge
    } else {
        remove_fields(&last, &mut patch, Type::of_kind(kind.kind).as_ref(), true);
        PatchForm::Strategic
    };
    patched((kind, Part::Main), form, Some(current), &patch, &WriteOptions::default())
}

/// Has a patch remove what the last configuration had and the new one, which the patch is, has not.
fn remove_fields(last: &Value, patch: &mut Value, of: Option<&Type>, is_strategic: bool) {
    let (Value::Object(last), Value::Object(fields)) = (last, patch) else { return };
    let mut removals = Map::new();
    for (name, before) in last {
        let inner = of.and_then(|of| of.field(name));
        let Some(now) = fields.get_mut(name) else {
            removals.insert(name.clone(), Value::Null);
            continue;
        };
        match (before, now) {
            (Value::Array(before), Value::Array(now)) if is_strategic => {
                let Some(list) = inner.filter(|inner| inner.merges_list()) else { continue };
                match list.merge_key() {
                    Some(key) => remove_items(before, now, (key, list.items().as_ref())),
                    None => {
                        let kept: BTreeSet<String> = now.iter().map(Value::to_string).collect();
                        let gone = before.iter().filter(|one| !kept.contains(&one.to_string()));
                        let gone: Vec<Value> = gone.cloned().collect();
                        if !gone.is_empty() {
                            let directive = format!("$deleteFromPrimitiveList/{name}");
                            removals.insert(directive, gone.into());
                        }
                    }
                }
            }
            (before, now) => remove_fields(before, now, inner.as_ref(), is_strategic),
        }
    }
    fields.extend(removals);
}

/// The same for the items of a list, which a field tells apart.
fn remove_items(last: &[Value], now: &mut Vec<Value>, (key, of): (&str, Option<&Type>)) {
    let mut removals = Vec::new();
    for before in last {
        let Some(id) = before.get(key) else { continue };
        match now.iter_mut().find(|one| one.get(key) == Some(id)) {
            Some(now) => remove_fields(before, now, of, true),
            None => removals.push(json!({"$patch": "delete", key: id})),
        }
    }
    now.extend(removals);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(record: &str) -> &'static Kind {
        Kind::of_record(record).unwrap()
    }

    #[test]
    fn the_annotation_has_the_bytes_of_kubectl() {
        let object = json!({"metadata": {"name": "a"}, "kind": "ConfigMap", "data": {"x": "<&>"}});
        let made = configuration(kind("configmaps"), object, "n");
        let wanted = "{\"data\":{\"x\":\"\\u003c\\u0026\\u003e\"},\"kind\":\"ConfigMap\",\
                      \"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"n\"}}\n";
        assert_eq!(made["metadata"]["annotations"][LAST], wanted);
        // Applied again as it was printed, it is what it was.
        assert_eq!(configuration(kind("configmaps"), made.clone(), "n"), made);
    }

    /// Applies two configurations in a row, with a change of somebody else in between.
    fn twice(record: &str, first: Value, others: impl FnOnce(&mut Value), second: Value) -> Value {
        let kind = kind(record);
        let mut object = configuration(kind, first, "n");
        others(&mut object);
        let new = configuration(kind, second, "n");
        let mut made = apply(kind, &object, &new).unwrap();
        super::super::meta::drop_nulls(&mut made);
        made["metadata"]["annotations"].as_object_mut().unwrap().remove(LAST);
        made
    }

    #[test]
    fn what_others_set_stays_and_what_is_left_out_goes() {
        let made = twice(
            "configmaps",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"x": "1", "y": "2"}}),
            |object| {
                object["data"]["z"] = "others".into();
                object["metadata"]["labels"]["c"] = "others".into();
            },
            json!({"metadata": {"labels": {"a": "9"}}, "data": {"y": "3"}}),
        );
        assert_eq!(made["data"], json!({"y": "3", "z": "others"}));
        assert_eq!(made["metadata"]["labels"], json!({"a": "9", "c": "others"}));
    }

    #[test]
    fn lists_are_merged_by_their_keys() {
        let containers = |names: &[&str]| -> Value {
            names.iter().map(|name| json!({"name": name, "image": "i", "args": ["a"]})).collect()
        };
        let made = twice(
            "pods",
            json!({"spec": {"containers": containers(&["a", "b"])}}),
            |object| {
                let list = object["spec"]["containers"].as_array_mut().unwrap();
                list[0]["imagePullPolicy"] = "Always".into();
                list.push(json!({"name": "injected"}));
            },
            json!({"spec": {"containers": [{"name": "a", "image": "j"}]}}),
        );
        let wanted = json!([
            {"name": "a", "image": "j", "imagePullPolicy": "Always"},
            {"name": "injected"},
        ]);
        assert_eq!(made["spec"]["containers"], wanted);
    }

    #[test]
    fn lists_of_values_lose_what_is_left_out() {
        let made = twice(
            "persistentvolumes",
            json!({"metadata": {"finalizers": ["a/a", "b/b"]}, "spec": {"mountOptions": ["x"]}}),
            |object| object["metadata"]["finalizers"] = json!(["a/a", "b/b", "c/c"]),
            json!({"metadata": {"finalizers": ["a/a"]}, "spec": {"mountOptions": ["y"]}}),
        );
        assert_eq!(made["metadata"]["finalizers"], json!(["a/a", "c/c"]));
        assert_eq!(made["spec"]["mountOptions"], json!(["y"]));
    }

    #[test]
    fn kinds_of_custom_resources_are_merged_without_a_schema() {
        let made = twice(
            "volumesnapshotclasses.snapshot.storage.k8s.io",
            json!({"driver": "d", "parameters": {"a": "1", "b": "2"}, "deletionPolicy": "Delete"}),
            |object| object["parameters"]["c"] = "others".into(),
            json!({"driver": "d", "parameters": {"a": "2"}, "deletionPolicy": "Delete"}),
        );
        assert_eq!(made["parameters"], json!({"a": "2", "c": "others"}));
    }

    #[test]
    fn an_object_without_the_annotation_loses_nothing() {
        let current = json!({"metadata": {"name": "a"}, "data": {"x": "1"}});
        assert!(!was_applied(&current));
        let new = configuration(kind("configmaps"), json!({"data": {"y": "2"}}), "n");
        let made = apply(kind("configmaps"), &current, &new).unwrap();
        assert_eq!(made["data"], json!({"x": "1", "y": "2"}));
        assert!(was_applied(&made));
    }
}
