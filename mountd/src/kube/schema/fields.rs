//! What is wrong with an object before any rule is asked: unknown fields and wrong types.
//!
//! The words are those of the API server: of its Go decoder for built-in kinds, and of its schema
//! check for custom resources. Duplicate fields are gone once an object is a [`Value`]: see
//! [`duplicate_fields`](super::duplicate_fields).

use std::fmt;

use serde_json::{Map, Value};

use super::go;
use super::kinds::kind_named;
use super::types::Type;

/// One thing that is wrong with the fields of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldProblem {
    /// The kind has no such field: refused by `fieldValidation=Strict`, warned of by `Warn`.
    Unknown(String),
    /// The manifest has the field twice: refused and warned of like an unknown field.
    Duplicate(String),
    /// A value of the wrong type: always refused, with status 400.
    Decode(String),
    /// A value that the schema of a custom resource refuses: always, with status 422.
    Invalid {
        /// The path of the field.
        path: String,
        /// The reason of the cause in `Status`, such as `FieldValueRequired`.
        reason: &'static str,
        /// What is wrong, without the path: `Required value`.
        message: String,
    },
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field {path:?}"),
            Self::Duplicate(path) => write!(f, "duplicate field {path:?}"),
            Self::Decode(message) => f.write_str(message),
            Self::Invalid { path, message, .. } => write!(f, "{path}: {message}"),
        }
    }
}

impl FieldProblem {
    /// Whether `fieldValidation` decides if the problem is refused, warned of or ignored.
    pub fn is_strict(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Duplicate(_))
    }
}

/// The message of the answer with status 400, if the problems call for one.
///
/// Problems of type come first, as nothing else is looked at then. `is_strict` is
/// `fieldValidation=Strict`.
pub fn strict_message(kind: &str, problems: &[FieldProblem], is_strict: bool) -> Option<String> {
    let decode = problems.iter().find(|problem| matches!(problem, FieldProblem::Decode(_)));
    let strict: Vec<String> =
        problems.iter().filter(|one| one.is_strict()).map(ToString::to_string).collect();
    let message = match decode {
        Some(problem) => problem.to_string(),
        None if is_strict && !strict.is_empty() => {
            format!("strict decoding error: {}", strict.join(", "))
        }
        None => return None,
    };
    Some(format!("{kind} in version \"v1\" cannot be handled as a {kind}: {message}"))
}

/// Everything that is wrong with the fields of an object; nothing for an unknown kind.
pub fn validate_fields(kind: &str, object: &Value) -> Vec<FieldProblem> {
    let Some(of) = Type::of_kind(kind) else { return Vec::new() };
    let is_custom = kind_named(kind).is_some_and(|kind| kind.is_custom());
    let mut walk = Walk { problems: Vec::new(), is_custom };
    let place =
        Place { path: String::new(), fields: String::new(), owner: None, go: String::new() };
    walk.value(object, &of, &place);
    walk.problems
}

/// Where a value is.
struct Place {
    /// With the positions in lists.
    path: String,
    /// The fields alone, as the decoder names the place.
    fields: String,
    /// The struct that has the field.
    owner: Option<&'static str>,
    /// The Go type of the place.
    go: String,
}

struct Walk {
    problems: Vec<FieldProblem>,
    is_custom: bool,
}

impl Walk {
    fn value(&mut self, value: &Value, of: &Type, place: &Place) {
        let is_struct = of.has_fields() || of.values().is_some();
        match value {
            Value::Null => {}
            _ if self.is_special(value, of) => {}
            Value::Object(fields) if is_struct => self.object(fields, of, place),
            Value::Array(items) => match of.items() {
                Some(item) => self.list(items, &item, place),
                None => self.wrong(value, of, place),
            },
            Value::Object(_) if of.word("type") == Some("object") => {}
            _ => match (value, of.word("type"), of.word("format")) {
                (Value::String(text), Some("string"), Some("byte")) => {
                    let message = |at| format!("illegal base64 data at input byte {at}");
                    let problem = illegal_base64(text).map(message);
                    self.problems.extend(problem.map(FieldProblem::Decode));
                }
                (Value::String(_), Some("string"), _)
                | (Value::Bool(_), Some("boolean"), _)
                | (Value::Number(_), Some("number"), _) => self.limit(value, of, place),
                (Value::Number(number), Some("integer"), format) => {
                    let fits = number.as_i64().is_some_and(|number| {
                        format != Some("int32") || i32::try_from(number).is_ok()
                    });
                    match fits {
                        true => self.limit(value, of, place),
                        false => self.wrong(value, of, place),
                    }
                }
                _ => self.wrong(value, of, place),
            },
        }
    }

    /// Checks the types that read themselves: quantities, times, numbers or texts.
    fn is_special(&mut self, value: &Value, of: &Type) -> bool {
        let message = match of.name.map(go::struct_name) {
            Some("Quantity") => go::quantity_error(value).map(str::to_owned),
            Some("Time" | "MicroTime") => match value {
                Value::String(text) => go::time_error(text),
                _ => Some(unmarshal(value, "string")),
            },
            Some("IntOrString") => match value {
                Value::String(_) => None,
                Value::Number(number) if number.is_i64() => None,
                _ => Some(unmarshal(value, "int32")),
            },
            // A size of a custom resource is a number or a text.
            _ if of.is_int_or_string() && value.is_i64() => None,
            _ => return false,
        };
        self.problems.extend(message.map(FieldProblem::Decode));
        true
    }

    fn object(&mut self, fields: &Map<String, Value>, of: &Type, place: &Place) {
        self.require(fields, of, place);
        for (name, value) in fields {
            let path = join(&place.path, name);
            let (inner, owner, go) = match (of.declared(name), of.values()) {
                (Some(inner), _) => {
                    let definition = of.name.unwrap_or_default();
                    let go = go::type_of_field(definition, name, &inner);
                    (inner, of.name.or(place.owner), go)
                }
                (None, Some(inner)) => {
                    let go = place.go.strip_prefix("map[string]").unwrap_or("string").to_owned();
                    (inner, place.owner, go)
                }
                (None, None) => {
                    self.problems.push(FieldProblem::Unknown(path));
                    continue;
                }
            };
            // The decoder names a map by its field, and not the keys.
            let fields = match of.has_fields() {
                true => join(&place.fields, name),
                false => place.fields.clone(),
            };
            self.value(value, &inner, &Place { path, fields, owner, go });
        }
    }

    /// Whether the schema of a custom resource decides. Metadata are decoded like those of others.
    fn judges(&self, place: &Place) -> bool {
        self.is_custom && !place.path.starts_with("metadata.")
    }

    fn refuse(&mut self, path: String, reason: &'static str, message: String) {
        self.problems.push(FieldProblem::Invalid { path, reason, message });
    }

    /// Asks for the fields that a custom resource must have. Those of built-in kinds have rules of
    /// their own, which admission knows.
    fn require(&mut self, fields: &Map<String, Value>, of: &Type, place: &Place) {
        if !self.judges(place) {
            return;
        }
        for name in of.required().filter(|name| !fields.contains_key(*name)) {
            let path = join(&place.path, name);
            self.refuse(path, "FieldValueRequired", "Required value".to_owned());
        }
    }

    /// Compares a scalar of a custom resource with the values and the least that may stand there.
    fn limit(&mut self, value: &Value, of: &Type, place: &Place) {
        if !self.judges(place) {
            return;
        }
        let path = place.path.clone();
        let allowed: Vec<String> = of.allowed().map(Value::to_string).collect();
        if !allowed.is_empty() && !allowed.contains(&value.to_string()) {
            let allowed = allowed.join(", ");
            let message = format!("Unsupported value: {value}: supported values: {allowed}");
            self.refuse(path, "FieldValueNotSupported", message);
        } else if let Some(least) = of.minimum().filter(|least| value.as_f64() < Some(*least)) {
            let message = format!(
                "Invalid value: {value}: {path} in body should be greater than or equal to {least}"
            );
            self.refuse(path, "FieldValueInvalid", message);
        }
    }

    fn list(&mut self, items: &[Value], of: &Type, place: &Place) {
        for (at, item) in items.iter().enumerate() {
            let place = Place {
                path: format!("{}[{at}]", place.path),
                fields: place.fields.clone(),
                owner: place.owner,
                go: place.go.strip_prefix("[]").unwrap_or(&place.go).to_owned(),
            };
            self.value(item, of, &place);
        }
    }

    fn wrong(&mut self, value: &Value, of: &Type, place: &Place) {
        if self.judges(place) {
            let expected = of.word("type").unwrap_or("object");
            let (path, value) = (&place.path, custom_name(value));
            let message = format!(
                "Invalid value: {value:?}: {path} in body must be of type {expected}: {value:?}"
            );
            self.refuse(path.clone(), "FieldValueTypeInvalid", message);
            return;
        }
        let value = match value {
            // The decoder writes the number if it is one, yet does not fit.
            Value::Number(number) if of.word("type") == Some("integer") => {
                format!("number {number}")
            }
            other => go::value_name(other).to_owned(),
        };
        let message = match place.owner.map(go::struct_name) {
            Some(owner) => format!(
                "json: cannot unmarshal {value} into Go struct field {owner}.{} of type {}",
                place.fields, place.go
            ),
            None => {
                let name = of.name.map(go::struct_name).unwrap_or_default();
                format!("json: cannot unmarshal {value} into Go value of type v1.{name}")
            }
        };
        self.problems.push(FieldProblem::Decode(message));
    }
}

fn unmarshal(value: &Value, go: &str) -> String {
    format!("json: cannot unmarshal {} into Go value of type {go}", go::value_name(value))
}

/// The kind of a value, as JSON schema names it.
fn custom_name(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Bool(_) => "boolean",
        other => go::value_name(other),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether the text is base64 with padding, line breaks aside.
/// The place at which Go finds that a text is no base64.
fn illegal_base64(text: &str) -> Option<usize> {
    let bytes: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let is_data = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let data = bytes.iter().take_while(|byte| is_data(byte)).count();
    let (rest, over) = (bytes.get(data..).unwrap_or_default(), data % 4);
    match (over, rest) {
        (0, []) | (2, [b'=', b'=']) | (3, [b'=']) => None,
        (_, []) => Some(data - over),
        (2, [b'=']) => Some(data + 1),
        (2, [b'=', b'=', ..]) => Some(data + 2),
        (3, [b'=', ..]) => Some(data + 1),
        _ => Some(data),
    }
}
