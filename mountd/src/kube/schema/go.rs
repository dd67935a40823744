//! The words of Go in the errors of Kubernetes' decoder: types, values and texts.

use serde_json::Value;

use super::definitions::Definitions;
use super::types::Type;

/// The name of the struct that a definition describes, such as `PersistentVolumeSpec`.
pub(super) fn struct_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or(definition)
}

/// The Go type of a field of a definition, such as `[]v1.PersistentVolumeAccessMode`.
pub(super) fn type_of_field(definition: &str, field: &str, of: &Type) -> String {
    match Definitions::all().go(definition, field) {
        Some(name) => match name.strip_prefix("[]") {
            Some(item) => format!("[]v1.{item}"),
            None => format!("v1.{name}"),
        },
        None => type_name(of),
    }
}

fn type_name(of: &Type) -> String {
    if let Some(name) = of.name {
        let package = if name.contains(".resource.") { "resource" } else { "v1" };
        return format!("{package}.{}", struct_name(name));
    }
    if let Some(items) = of.items() {
        return format!("[]{}", type_name(&items));
    }
    if let Some(values) = of.values() {
        let values = type_name(&values);
        let is_resources = values == "resource.Quantity";
        let name = format!("map[string]{values}");
        return if is_resources { "v1.ResourceList".to_owned() } else { name };
    }
    let name = match (of.word("type"), of.word("format")) {
        (Some("string"), Some("byte")) => "[]uint8",
        (Some("integer"), Some("int32")) => "int32",
        (Some("integer"), _) => "int64",
        (Some("number"), _) => "float64",
        (Some("boolean"), _) => "bool",
        (Some("string"), _) => "string",
        _ => "map[string]interface {}",
    };
    name.to_owned()
}

/// The kind of a value, as the decoder names it.
pub fn value_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Why a value is not a quantity.
pub(super) fn quantity_error(value: &Value) -> Option<&'static str> {
    const FORMAT: &str = "quantities must match the regular expression \
                          '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    const SUFFIX: &str = "unable to parse quantity's suffix";
    const NUMERIC: &str = "unable to parse numeric part of quantity";
    const SUFFIXES: [&str; 17] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "K"];
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => return None,
        other => other.to_string(),
    };
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let at = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(at);
    if number.is_empty() {
        return Some(FORMAT);
    }
    if number.matches('.').count() > 1 || number == "." {
        return Some(NUMERIC);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).unwrap_or_default();
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_exponent = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // `K` is none of them, but is often written: it stands in the list only to be left out here.
    if is_exponent || (suffix != "K" && SUFFIXES.contains(&suffix)) {
        return None;
    }
    let letters = |c: char| "eEinumkKMGTP+-0123456789".contains(c);
    Some(if suffix.chars().all(letters) { SUFFIX } else { FORMAT })
}

/// Why a text is not a time of RFC 3339, as far as its form tells.
pub(super) fn time_error(text: &str) -> Option<String> {
    const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
    let (date_time, rest) = text.split_at_checked(19).unwrap_or((text, ""));
    let is_like = |(sample, byte): (u8, u8)| match sample {
        b'0'..=b'9' => byte.is_ascii_digit(),
        other => other == byte,
    };
    let has_form =
        date_time.len() == 19 && "2006-01-02T15:04:05".bytes().zip(date_time.bytes()).all(is_like);
    let zone = rest
        .strip_prefix('.')
        .map_or(rest, |fraction| fraction.trim_start_matches(|c: char| c.is_ascii_digit()));
    let is_offset = zone.len() == 6
        && zone.starts_with(['+', '-'])
        && "07:00".bytes().zip(zone.bytes().skip(1)).all(is_like);
    if has_form && (zone == "Z" || is_offset) {
        return None;
    }
    let (from, part) = if has_form { (zone, "Z07:00") } else { (text, "2006") };
    Some(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {from:?} as {part:?}"))
}
