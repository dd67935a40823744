//! Any object in words: its fields by their names, as kubectl describes custom resources.

use serde_json::Value;

use super::{Page, or_none};
use crate::kube::meta::text;

/// Names that are printed in capitals.
const ACRONYMS: [&str; 15] = [
    "API", "CA", "CPU", "CSI", "DNS", "FS", "HTTP", "ID", "IP", "NFS", "PVC", "UID", "URI", "URL",
    "OS",
];
/// What is printed in another place, or not at all.
const SKIPPED: [&str; 7] = [
    ".apiVersion",
    ".kind",
    ".metadata.annotations",
    ".metadata.labels",
    ".metadata.managedFields",
    ".metadata.name",
    ".metadata.namespace",
];

/// Describes an object.
pub(super) fn describe(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels("Labels", object, "/metadata/labels");
    page.annotations(object);
    page.field(0, "API Version", text(object, "/apiVersion"));
    page.field(0, "Kind", text(object, "/kind"));
    fields(page, 0, object, "");
}

fn fields(page: &mut Page, level: usize, object: &Value, path: &str) {
    for (name, value) in object.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if SKIPPED.contains(&&path[..]) {
            continue;
        }
        let title = title(name);
        match value {
            Value::Object(_) => {
                page.line(level, &format!("{title}:"));
                fields(page, level + 1, value, &path);
            }
            Value::Array(items) => {
                page.line(level, &format!("{title}:"));
                for item in items {
                    match item {
                        Value::Object(_) => fields(page, level + 1, item, &path),
                        other => page.line(level + 1, &scalar(other)),
                    }
                }
            }
            other => page.field(level, &title, &scalar(other)),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => or_none("").to_owned(),
        other => other.to_string(),
    }
}

/// The name of a field as words: `creationTimestamp` is `Creation Timestamp`.
fn title(name: &str) -> String {
    // A key of a label or of data is no name of a field.
    if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return name.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut before = 'A';
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && !before.is_ascii_uppercase();
        match words.last_mut() {
            Some(word) if !begins => word.push(c),
            _ => words.push(c.to_string()),
        }
        before = c;
    }
    let words = words.into_iter().map(|word| {
        let capitals = word.to_uppercase();
        if ACRONYMS.contains(&&capitals[..]) {
            return capitals;
        }
        let mut letters = word.chars();
        letters
            .next()
            .map_or(String::new(), |first| first.to_uppercase().chain(letters).collect::<String>())
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_words() {
        let cases = [
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("persistentVolumeClaimName", "Persistent Volume Claim Name"),
            ("a.b/c", "a.b/c"),
        ];
        for (name, words) in cases {
            assert_eq!(title(name), words);
        }
    }
}
