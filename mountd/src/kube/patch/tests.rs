//! Tests of patches: tables of an object, a patch, and the answer.

mod apply;
mod random;
mod strategic;
mod track;

use serde_json::{Value, json};

use super::field_set::FieldSet;
use super::*;

/// A patch without a writer, of an object that exists.
fn patched(
    kind: &str,
    current: &Value,
    body: &Value,
    how: &PatchType<'_>,
) -> Result<Value, PatchError> {
    patch(kind, Some(current), body, how)
}

#[test]
fn merge_patches_follow_the_cases_of_the_rfc() {
    // The table of appendix A of RFC 7386, as far as the outermost value is a map.
    let rows = [
        (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
        (json!({ "a": "b" }), json!({ "b": "c" }), json!({ "a": "b", "b": "c" })),
        (json!({ "a": "b" }), json!({ "a": null }), json!({})),
        (json!({ "a": "b", "b": "c" }), json!({ "a": null }), json!({ "b": "c" })),
        (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
        (json!({ "a": "c" }), json!({ "a": ["b"] }), json!({ "a": ["b"] })),
        (
            json!({ "a": { "b": "c" } }),
            json!({ "a": { "b": "d", "c": null } }),
            json!({ "a": { "b": "d" } }),
        ),
        (json!({ "a": [{ "b": "c" }] }), json!({ "a": [1] }), json!({ "a": [1] })),
        (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
        (json!({}), json!({ "a": { "b": { "c": null } } }), json!({ "a": { "b": {} } })),
        (json!({ "a": 1 }), json!({}), json!({ "a": 1 })),
    ];
    for (current, body, expected) in rows {
        let answer = patched("ConfigMap", &current, &body, &PatchType::Merge).unwrap();
        assert_eq!(answer, expected, "{current} with {body}");
    }
    for body in [json!([]), json!("x"), json!(null)] {
        let error = patched("ConfigMap", &json!({}), &body, &PatchType::Merge).unwrap_err();
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn json_patches_change_the_object() {
    let current = json!({ "a": { "b": 1 }, "l": [1, 2, 3], "x/y": 1, "m~n": 2 });
    let rows = [
        (json!([{ "op": "add", "path": "/a/c", "value": 2 }]), "/a/c", json!(2)),
        (json!([{ "op": "add", "path": "/l/1", "value": 9 }]), "/l", json!([1, 9, 2, 3])),
        (json!([{ "op": "add", "path": "/l/-", "value": 9 }]), "/l", json!([1, 2, 3, 9])),
        (json!([{ "op": "add", "path": "/l/3", "value": 9 }]), "/l", json!([1, 2, 3, 9])),
        (json!([{ "op": "add", "path": "/a", "value": null }]), "/a", json!(null)),
        (json!([{ "op": "remove", "path": "/a/b" }]), "/a", json!({})),
        (json!([{ "op": "remove", "path": "/l/0" }]), "/l", json!([2, 3])),
        (json!([{ "op": "replace", "path": "/l/2", "value": {} }]), "/l", json!([1, 2, {}])),
        (json!([{ "op": "replace", "path": "/x~1y", "value": 3 }]), "/x~1y", json!(3)),
        (json!([{ "op": "move", "from": "/a/b", "path": "/c" }]), "/c", json!(1)),
        (json!([{ "op": "move", "from": "/l/0", "path": "/l/2" }]), "/l", json!([2, 3, 1])),
        (json!([{ "op": "copy", "from": "/a", "path": "/c" }]), "/c", json!({ "b": 1 })),
        (json!([{ "op": "test", "path": "/m~0n", "value": 2.0 }]), "/m~0n", json!(2)),
        (json!([{ "op": "test", "path": "/none", "value": null }]), "/a/b", json!(1)),
        (json!([{ "op": "replace", "path": "", "value": { "z": 1 } }]), "", json!({ "z": 1 })),
        (json!([]), "/a/b", json!(1)),
    ];
    for (body, place, expected) in rows {
        let answer = patched("ConfigMap", &current, &body, &PatchType::Json).unwrap();
        assert_eq!(answer.pointer(place), Some(&expected), "{body}");
    }
}

#[test]
fn json_patches_that_do_not_fit_change_nothing() {
    let current = json!({ "a": { "b": 1 }, "l": [1, 2] });
    let rows = [
        (json!({}), 400, "expected a list"),
        (json!([{ "path": "/a" }]), 400, "needs \"op\""),
        (json!([{ "op": "add", "value": 1 }]), 400, "needs \"path\""),
        (json!([{ "op": "add", "path": "/a" }]), 400, "needs \"value\""),
        (json!([{ "op": "move", "path": "/a" }]), 400, "needs \"from\""),
        (json!([{ "op": "turn", "path": "/a" }]), 400, "Unexpected kind: turn"),
        (json!([{ "op": "remove", "path": "a" }]), 400, "starts with no /"),
        (json!([{ "op": "remove", "path": "/x" }]), 422, "remove operation does not apply"),
        (json!([{ "op": "remove", "path": "" }]), 422, "remove operation does not apply"),
        (json!([{ "op": "replace", "path": "/x", "value": 1 }]), 422, "doc is missing key: \"/x\""),
        (
            json!([{ "op": "add", "path": "/x/y", "value": 1 }]),
            422,
            "doc is missing path: \"/x/y\"",
        ),
        (json!([{ "op": "add", "path": "/l/3", "value": 1 }]), 422, "invalid index"),
        (json!([{ "op": "add", "path": "/l/01", "value": 1 }]), 422, "invalid index"),
        (json!([{ "op": "move", "from": "/a", "path": "/a/b" }]), 422, "move into itself"),
        (
            json!([{ "op": "test", "path": "/a/b", "value": 2 }]),
            422,
            "testing value /a/b failed: test failed",
        ),
    ];
    for (body, status, words) in rows {
        let error = patched("ConfigMap", &current, &body, &PatchType::Json).unwrap_err();
        assert_eq!(error.status(), status, "{body}");
        assert!(error.to_string().contains(words), "{body}: {error}");
    }
}

#[test]
fn json_patches_are_limited() {
    let test = json!({ "op": "test", "path": "/none", "value": null });
    let many = |count| Value::Array(vec![test.clone(); count]);
    assert!(patched("ConfigMap", &json!({}), &many(10_000), &PatchType::Json).is_ok());
    let error = patched("ConfigMap", &json!({}), &many(10_001), &PatchType::Json).unwrap_err();
    assert_eq!(error.status(), 413);
    assert_eq!(error.reason(), "RequestEntityTooLarge");
    assert_eq!(
        error.to_string(),
        "The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    // Each copy doubles the object: a short patch would fill the memory.
    let body: Value =
        (0..40).map(|at| json!({ "op": "copy", "from": "", "path": format!("/{at}") })).collect();
    let current = json!({ "text": "0123456789" });
    let error = patched("ConfigMap", &current, &body, &PatchType::Json).unwrap_err();
    assert_eq!(error.status(), 413);
    assert!(error.to_string().contains("more than 3145728 bytes"), "{error}");
    // Each move puts the object a level deeper: a deep one would exhaust the stack.
    let deeper = |at| {
        let (inner, outer) = if at % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
        [
            json!({ "op": "add", "path": outer, "value": {} }),
            json!({ "op": "move", "from": inner, "path": format!("{outer}/x") }),
        ]
    };
    let body: Value = (0..200).flat_map(deeper).collect();
    let error = patched("ConfigMap", &json!({ "a": {} }), &body, &PatchType::Json).unwrap_err();
    assert_eq!(error.status(), 413);
    assert!(error.to_string().contains("deeper than 100"), "{error}");
}

#[test]
fn sets_of_fields_are_read_and_written() {
    // What is read, what is written, and the paths.
    let rows: [(Value, Value, &[&str]); 8] = [
        (json!({}), json!({}), &[]),
        (json!({ "f:a": {} }), json!({ "f:a": {} }), &[".a"]),
        (json!({ "f:a": { "f:b": {} } }), json!({ "f:a": { "f:b": {} } }), &[".a.b"]),
        (
            json!({ "f:a": { ".": {}, "f:b": {} } }),
            json!({ "f:a": { ".": {}, "f:b": {} } }),
            &[".a", ".a.b"],
        ),
        (
            json!({ "k:{ \"b\": 1, \"a\": \"x\" }": {} }),
            json!({ "k:{\"a\":\"x\",\"b\":1}": {} }),
            &["[a=\"x\",b=1]"],
        ),
        (json!({ "v: 1": {} }), json!({ "v:1": {} }), &["[=1]"]),
        (json!({ "i:0": {} }), json!({ "i:0": {} }), &["[0]"]),
        // What nobody can read is left out.
        (
            json!({ "": {}, "x": {}, "\u{e4}\u{e4}": {}, "k:{": {}, "v:": {}, "q:a": {} }),
            json!({}),
            &[],
        ),
    ];
    for (read, written, paths) in rows {
        let set = FieldSet::decode(&read);
        assert_eq!(set.encode(), written);
        assert_eq!(set.paths(), paths);
        assert_eq!(FieldSet::decode(&set.encode()), set);
    }
    for broken in [json!(null), json!([]), json!("f:a"), json!(1)] {
        assert!(FieldSet::decode(&broken).is_empty());
    }
}
