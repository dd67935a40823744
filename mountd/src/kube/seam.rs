//! Where the objects call patches, schemas and admission.
//!
//! These modules know nothing of the store and of HTTP: here their errors become answers.

use serde_json::{Value, json};

use super::admission;
use super::kinds::Kind;
use super::meta::now;
use super::objects::{Part, Unknown, WriteOptions};
use super::patch::{self, PatchError, PatchType, Writer};
use super::schema::{self, Type};
use super::status::{Answer, Failure, FieldError};

pub use super::schema::{FieldProblem, duplicate_fields, openapi, value_name};

/// Warnings of one answer.
const WARNINGS_MAX: usize = 20;

/// The form of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchForm {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// A merge that knows the keys of lists.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchForm {
    /// The form of a media type.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            _ => return None,
        })
    }
}

/// What admission says of an object.
#[derive(Debug, Default)]
pub struct Report {
    /// Why it is refused.
    pub errors: Vec<FieldError>,
    /// What its author should know.
    pub warnings: Vec<String>,
}

impl From<admission::Report> for Report {
    fn from(report: admission::Report) -> Self {
        let error = |error: admission::FieldError| FieldError {
            field: error.field,
            reason: error.reason.name(),
            message: error.message,
        };
        Self { errors: report.errors.into_iter().map(error).collect(), warnings: report.warnings }
    }
}

/// The object that a patch makes of another one; of `None` only server-side apply makes one.
///
/// # Errors
/// An unsupported form, a patch that does not fit, a conflict with another manager.
pub fn patched(
    (kind, part): (&'static Kind, Part),
    form: PatchForm,
    current: Option<&Value>,
    patch: &Value,
    options: &WriteOptions,
) -> Answer<Value> {
    let now = now();
    let how = match form {
        PatchForm::Json => PatchType::Json,
        PatchForm::Merge => PatchType::Merge,
        PatchForm::Strategic => PatchType::Strategic,
        PatchForm::Apply => {
            PatchType::Apply { writer: writer(options, part, &now), force: options.is_forced }
        }
    };
    let name = [current, Some(patch)]
        .into_iter()
        .flatten()
        .find_map(|object| object.pointer("/metadata/name")?.as_str());
    patch::patch(kind.kind, current, patch, &how)
        .map_err(|error| refused(kind, name.unwrap_or_default(), error))
}

fn writer<'a>(options: &'a WriteOptions, part: Part, now: &'a str) -> Writer<'a> {
    let subresource = (part == Part::Status).then_some("status");
    let manager = if options.manager.is_empty() { "unknown" } else { &options.manager };
    Writer { manager, subresource, now }
}

fn refused(kind: &'static Kind, name: &str, error: PatchError) -> Failure {
    let message = error.to_string();
    match error {
        PatchError::Conflict { message, causes } => {
            let causes: Vec<Value> = causes
                .into_iter()
                .map(|cause| {
                    json!({
                        "reason": "FieldManagerConflict",
                        "message": format!("conflict with {}", cause.manager),
                        "field": cause.field,
                    })
                })
                .collect();
            let conflict = Failure::conflict(kind, name, "");
            Failure { message, details: Some(json!({"causes": causes})), ..conflict }
        }
        other => Failure::new(other.status(), other.reason(), message),
    }
}

/// Records the manager of each changed field. A server-side apply has done so.
pub fn track(
    (kind, part): (&'static Kind, Part),
    old: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
) {
    if !options.is_applied {
        patch::track_update(kind.kind, old, new, &writer(options, part, &now()));
    }
}

/// Judges the fields of an object by its schema, and removes those that the kind does not have.
/// Returns warnings.
///
/// # Errors
/// A value of a wrong type; an unknown field where these are refused.
pub fn check_fields(
    kind: &'static Kind,
    object: &mut Value,
    options: &WriteOptions,
) -> Answer<Vec<String>> {
    let unknown = options.unknown;
    let mut problems = options.duplicates.clone();
    problems.extend(schema::validate_fields(kind.kind, object));
    if problems.is_empty() {
        return Ok(Vec::new());
    }
    let is_strict = unknown == Unknown::Refuse;
    if let Some(message) = schema::strict_message(kind.kind, &problems, is_strict) {
        return Err(Failure::bad_request(message));
    }
    let invalid: Vec<FieldError> = problems.iter().filter_map(invalid).collect();
    if !invalid.is_empty() {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        return Err(Failure::invalid(kind, name, &invalid));
    }
    if let Some(of) = Type::of_kind(kind.kind) {
        prune(object, &of);
    }
    if unknown == Unknown::Ignore {
        return Ok(Vec::new());
    }
    let strict = problems.iter().filter(|problem| problem.is_strict());
    Ok(strict.map(ToString::to_string).take(WARNINGS_MAX).collect())
}

fn invalid(problem: &FieldProblem) -> Option<FieldError> {
    let FieldProblem::Invalid { path, reason, message } = problem else { return None };
    Some(FieldError { field: path.clone(), reason, message: message.clone() })
}

/// Removes the fields that a type does not declare.
fn prune(value: &mut Value, of: &Type) {
    match value {
        Value::Object(fields) if of.has_fields() => {
            fields.retain(|name, _| of.field(name).is_some());
            for (name, value) in fields {
                if let Some(of) = of.field(name) {
                    prune(value, &of);
                }
            }
        }
        Value::Object(fields) => {
            if let Some(of) = of.values() {
                fields.values_mut().for_each(|value| prune(value, &of));
            }
        }
        Value::Array(items) => {
            if let Some(of) = of.items() {
                items.iter_mut().for_each(|item| prune(item, &of));
            }
        }
        _ => {}
    }
}

/// Fills in what a new or changed object leaves out.
pub fn default(kind: &'static Kind, object: &mut Value) {
    admission::default(kind.kind, object);
}

/// Judges a new object.
#[must_use]
pub fn admit_new(kind: &'static Kind, object: &Value) -> Report {
    admission::create(kind.kind, object).into()
}

/// Judges a change.
#[must_use]
pub fn admit_change(kind: &'static Kind, old: &Value, new: &Value) -> Report {
    admission::update(kind.kind, old, new).into()
}
