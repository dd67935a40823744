//! What all objects have: names, ids, times, finalizers, owners.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::kinds::Kind;
use super::status::{Answer, Failure, FieldError};

/// The longest name.
const NAME_MAX: usize = 253;
/// The longest beginning of a generated name: five characters follow.
const GENERATED_MAX: usize = 58;
/// Letters of generated names: no vowels and no digits that look like them, so that no words arise.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A text in an object; empty if it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list in an object.
pub fn texts(object: &Value, pointer: &str) -> Vec<String> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// A map in an object, which is made if it is not there.
pub fn map_in<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let value = object.as_object_mut()?.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    Some(value)
}

/// Sets a field of the metadata, or removes it.
pub fn set_meta(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(meta) = map_in(object, "metadata") {
        set(meta, name, value);
    }
}

/// A field of the metadata.
pub fn meta<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(name).filter(|value| !value.is_null())
}

/// Sets a field of the object, or removes it.
pub fn set(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
}

/// Removes fields of null: they stand for fields that are not there.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Removes lists and maps of the metadata that are empty: they stand for those that are not there.
pub fn drop_empty(object: &mut Value) {
    let is_empty = |value: &Value| {
        value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, value| !is_empty(value));
    }
}

/// The time of now as objects have it.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The time of now plus some seconds.
pub fn after_seconds(seconds: u64) -> String {
    let time = SystemTime::now() + std::time::Duration::from_secs(seconds.min(1 << 32));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Random bytes. Without a source of them, the clock is one.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    if filled != Ok(N) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (byte, time) in bytes.iter_mut().zip(since.as_nanos().to_le_bytes()) {
            *byte = time;
        }
    }
    bytes
}

/// A new id: a random UUID (RFC 9562, version 4).
pub fn new_uid() -> String {
    let [high, low] = [random::<8>(), random::<8>()].map(u64::from_be_bytes);
    let (first, second) = (high >> 32, (high >> 16) & 0xffff);
    let third = (high & 0x0fff) | 0x4000;
    let fourth = ((low >> 48) & 0x3fff) | 0x8000;
    format!("{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{:012x}", low & 0xffff_ffff_ffff)
}

/// A name of a beginning and five random characters.
pub fn generated(beginning: &str) -> String {
    let kept: String = beginning.chars().take(GENERATED_MAX).collect();
    let letters = random::<5>().map(|byte| {
        char::from(LETTERS.get(usize::from(byte) % LETTERS.len()).copied().unwrap_or(b'x'))
    });
    kept + &letters.iter().collect::<String>()
}

/// Checks that a name can be part of a path. Admission has the rules of its kind.
pub fn check_name(kind: &'static Kind, name: &str) -> Answer<()> {
    let detail = if name.is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(Failure::invalid(kind, name, &[error]));
    } else if matches!(name, "." | "..") {
        format!("may not be '{name}'")
    } else if let Some(bad) = ['/', '%'].into_iter().find(|bad| name.contains(*bad)) {
        format!("may not contain '{bad}'")
    } else if name.len() > NAME_MAX {
        format!("must be no more than {NAME_MAX} bytes")
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("metadata.name", &name.into(), &detail);
    Err(Failure::invalid(kind, name, &[error]))
}

/// The ids of the objects that own an object.
pub fn owners(object: &Value) -> Vec<String> {
    let list = meta(object, "ownerReferences").and_then(Value::as_array);
    let uids = list.into_iter().flatten().filter_map(|owner| owner.get("uid")?.as_str());
    uids.map(str::to_owned).collect()
}

/// The finalizers of an object.
pub fn finalizers(object: &Value) -> Vec<String> {
    texts(object, "/metadata/finalizers")
}

/// Whether the object is being deleted.
pub fn is_ending(object: &Value) -> bool {
    meta(object, "deletionTimestamp").is_some()
}

/// Adds a finalizer.
pub fn add_finalizer(object: &mut Value, name: &str) {
    let mut all = finalizers(object);
    if !all.iter().any(|one| one == name) {
        all.push(name.to_owned());
        set_meta(object, "finalizers", Some(all.into()));
    }
}

/// Removes a finalizer.
pub fn remove_finalizer(object: &mut Value, name: &str) {
    let all: Vec<String> = finalizers(object).into_iter().filter(|one| one != name).collect();
    let all = (!all.is_empty()).then(|| all.into());
    set_meta(object, "finalizers", all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_generated_names_have_their_form() {
        let uid = new_uid();
        let lens: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lens, [8, 4, 4, 4, 12]);
        assert_eq!(&uid[14..15], "4");
        assert!("89ab".contains(&uid[19..20]), "{uid}");
        assert_ne!(new_uid(), uid);
        let name = generated("claim-");
        assert!(name.starts_with("claim-") && name.len() == 11, "{name}");
        assert_eq!(generated(&"x".repeat(80)).len(), 63);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        let kind = Kind::of_record("persistentvolumes").unwrap();
        for bad in ["", ".", "..", "a/b", "a%b", &"x".repeat(254)] {
            assert_eq!(check_name(kind, bad).unwrap_err().code, 422, "{bad:?}");
        }
        check_name(kind, "a.b").unwrap();
    }
}
