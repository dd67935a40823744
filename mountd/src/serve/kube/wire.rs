//! Bodies in the protobuf form of Kubernetes.
//!
//! kubectl since 1.32 sends what `create namespace`, `create configmap` and `create secret` make
//! in this form alone, and does not repeat a refused one as JSON. So these kinds, and the options
//! of deletions, are read by tables of their fields; a field outside the tables is refused by its
//! number, so that none is lost in silence. Answers are always JSON, which such clients accept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::kube::status::{Answer, Failure};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The first bytes of a body.
const MAGIC: &[u8] = b"k8s\0";

/// The form of a field.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Bool,
    Number,
    Time,
    /// A map of texts.
    Texts,
    /// A map of bytes, which JSON has in base 64.
    Bytes,
    Message(&'static [Field]),
    /// One of several.
    Each(&'static Form),
}

/// Number, name and form of a field.
type Field = (u64, &'static str, Form);

const OWNER: [Field; 6] = [
    (1, "kind", Form::Text),
    (3, "name", Form::Text),
    (4, "uid", Form::Text),
    (5, "apiVersion", Form::Text),
    (6, "controller", Form::Bool),
    (7, "blockOwnerDeletion", Form::Bool),
];
const META: [Field; 14] = [
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    (4, "selfLink", Form::Text),
    (5, "uid", Form::Text),
    (6, "resourceVersion", Form::Text),
    (7, "generation", Form::Number),
    (8, "creationTimestamp", Form::Time),
    (9, "deletionTimestamp", Form::Time),
    (10, "deletionGracePeriodSeconds", Form::Number),
    (11, "labels", Form::Texts),
    (12, "annotations", Form::Texts),
    (13, "ownerReferences", Form::Each(&Form::Message(&OWNER))),
    (14, "finalizers", Form::Each(&Form::Text)),
];
const NAMESPACE: [Field; 3] = [
    (1, "metadata", Form::Message(&META)),
    (2, "spec", Form::Message(&[(1, "finalizers", Form::Each(&Form::Text))])),
    (3, "status", Form::Message(&[(1, "phase", Form::Text)])),
];
const CONFIG_MAP: [Field; 4] = [
    (1, "metadata", Form::Message(&META)),
    (2, "data", Form::Texts),
    (3, "binaryData", Form::Bytes),
    (4, "immutable", Form::Bool),
];
const SECRET: [Field; 5] = [
    (1, "metadata", Form::Message(&META)),
    (2, "data", Form::Bytes),
    (3, "type", Form::Text),
    (4, "stringData", Form::Texts),
    (5, "immutable", Form::Bool),
];
const DELETE_OPTIONS: [Field; 5] = [
    (1, "gracePeriodSeconds", Form::Number),
    (
        2,
        "preconditions",
        Form::Message(&[(1, "uid", Form::Text), (2, "resourceVersion", Form::Text)]),
    ),
    (3, "orphanDependents", Form::Bool),
    (4, "propagationPolicy", Form::Text),
    (5, "dryRun", Form::Each(&Form::Text)),
];
/// What names the kind of an object.
const TYPE: [Field; 2] = [(1, "apiVersion", Form::Text), (2, "kind", Form::Text)];

fn broken() -> Failure {
    Failure::bad_request("the body is not valid protobuf")
}

/// A value on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Answer<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(broken)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

/// The next field of a message.
fn next<'a>(bytes: &mut &'a [u8]) -> Answer<Option<(u64, Wire<'a>)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Varint(varint(bytes)?),
        2 => {
            let len = usize::try_from(varint(bytes)?).map_err(|_| broken())?;
            let (value, rest) = bytes.split_at_checked(len).ok_or_else(broken)?;
            *bytes = rest;
            Wire::Bytes(value)
        }
        _ => return Err(broken()),
    };
    Ok(Some((tag >> 3, wire)))
}

fn text(bytes: &[u8]) -> Answer<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| broken())
}

/// Key and value of an entry of a map.
fn entry(mut bytes: &[u8]) -> Answer<(String, &[u8])> {
    let (mut key, mut value): (String, &[u8]) = (String::new(), &[]);
    while let Some((number, wire)) = next(&mut bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(found)) => key = text(found)?,
            (2, Wire::Bytes(found)) => value = found,
            _ => return Err(broken()),
        }
    }
    Ok((key, value))
}

fn time(mut bytes: &[u8]) -> Answer<Value> {
    let mut seconds = 0;
    while let Some((number, wire)) = next(&mut bytes)? {
        if let (1, Wire::Varint(found)) = (number, wire) {
            seconds = found;
        }
    }
    // The zero time of Go is before 1970: a negative number.
    let since = i64::try_from(seconds).ok().filter(|seconds| (1..1 << 37).contains(seconds));
    let shown = since.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        humantime::format_rfc3339_seconds(time).to_string()
    });
    Ok(shown.into())
}

fn put(object: &mut Map<String, Value>, name: &str, form: Form, wire: &Wire<'_>) -> Answer<()> {
    let value = match (form, wire) {
        (Form::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Form::Bool, Wire::Varint(value)) => (*value != 0).into(),
        // Negative numbers are those of two's complement.
        (Form::Number, Wire::Varint(value)) => value.cast_signed().into(),
        (Form::Time, Wire::Bytes(bytes)) => time(bytes)?,
        (Form::Message(fields), Wire::Bytes(bytes)) => message(fields, bytes)?,
        (Form::Texts | Form::Bytes, Wire::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            let value = match form {
                Form::Texts => text(value)?,
                _ => STANDARD.encode(value),
            };
            let map = object.entry(name).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, value.into());
            }
            return Ok(());
        }
        (Form::Each(form), wire) => {
            let mut one = Map::new();
            put(&mut one, name, *form, wire)?;
            let list = object.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.extend(one.remove(name));
            }
            return Ok(());
        }
        _ => return Err(broken()),
    };
    object.insert(name.to_owned(), value);
    Ok(())
}

fn message(fields: &[Field], mut bytes: &[u8]) -> Answer<Value> {
    let mut object = Map::new();
    while let Some((number, wire)) = next(&mut bytes)? {
        let Some((_, name, form)) = fields.iter().find(|field| field.0 == number) else {
            let text = format!("field {number} of the protobuf body is not supported: send JSON");
            return Err(Failure::new(415, "UnsupportedMediaType", text));
        };
        // The client writes empty texts for fields that are not set.
        if !matches!((form, &wire), (Form::Text, Wire::Bytes([]))) {
            put(&mut object, name, *form, &wire)?;
        }
    }
    Ok(object.into())
}

/// Reads a body.
///
/// # Errors
/// A body that is broken, a kind or a field that is only read as JSON.
pub fn parse(bytes: &[u8]) -> Answer<Value> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (mut form, mut raw): (Value, &[u8]) = (Value::Null, &[]);
    while let Some((number, wire)) = next(&mut rest)? {
        match (number, wire) {
            (1, Wire::Bytes(found)) => form = message(&TYPE, found)?,
            (2, Wire::Bytes(found)) => raw = found,
            _ => {}
        }
    }
    let kind = form.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let fields: &[Field] = match &kind[..] {
        "Namespace" => &NAMESPACE,
        "ConfigMap" => &CONFIG_MAP,
        "Secret" => &SECRET,
        "DeleteOptions" => &DELETE_OPTIONS,
        _ => {
            let text = format!("a {kind} in protobuf form is not supported: send JSON");
            return Err(Failure::new(415, "UnsupportedMediaType", text));
        }
    };
    let mut object = message(fields, raw)?;
    if let (Some(object), Some(form)) = (object.as_object_mut(), form.as_object()) {
        object.extend(form.clone());
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let form = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &form), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_secret_is_read_as_its_json() {
        let label = field(11, &[field(1, b"a"), field(2, b"b")].concat());
        let meta = [field(1, b"s"), field(3, b""), field(8, &[]), label].concat();
        let data = field(2, &[field(1, b"key"), field(2, b"\xff")].concat());
        let raw = [field(1, &meta), data, field(3, b"Opaque"), vec![5 << 3, 1]].concat();
        let expected = json!({
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "s", "creationTimestamp": null, "labels": {"a": "b"}},
            "data": {"key": "/w=="},
            "type": "Opaque",
            "immutable": true,
        });
        assert_eq!(parse(&body("Secret", &raw)).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_refused_and_nothing_panics() {
        assert_eq!(parse(&body("Pod", &[])).unwrap_err().code, 415);
        let other = [field(1, &field(1, b"n")), field(9, b"x")].concat();
        assert_eq!(parse(&body("ConfigMap", &other)).unwrap_err().code, 415);
        let whole = body("Namespace", &field(1, &field(1, b"name")));
        parse(&whole).unwrap();
        for len in 0..whole.len() {
            drop(parse(&whole[..len]));
        }
        for place in 0..whole.len() {
            let mut broken = whole.clone();
            broken[place] ^= 0x80;
            drop(parse(&broken));
        }
        assert_eq!(parse(b"k8s").unwrap_err().code, 400);
    }
}
