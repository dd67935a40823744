//! Errors and warnings about an object, in the words of Kubernetes.

use std::fmt;

use serde_json::Value;

use super::field::Field;

/// The kind of a field error: the `reason` of a cause in the status that the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `FieldValueRequired`: the field must be set.
    Required,
    /// `FieldValueInvalid`: the value is malformed.
    Invalid,
    /// `FieldValueNotSupported`: the value is none of the known ones.
    NotSupported,
    /// `FieldValueForbidden`: the value is not allowed here.
    Forbidden,
    /// `FieldValueDuplicate`: the value must be unique.
    Duplicate,
    /// `FieldValueTooLong`: the value is too long.
    TooLong,
    /// `FieldValueNotFound`: the value names something that does not exist.
    NotFound,
}

impl Reason {
    /// The name in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::NotFound => "Not found",
        }
    }
}

/// One fault of an object. It prints as `FIELD: MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field.
    pub field: String,
    /// The kind of the fault.
    pub reason: Reason,
    /// The kind in words, the value and the detail: the `message` of the cause.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The judgement on an object: it is accepted if there are no errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the object is refused.
    pub errors: Vec<FieldError>,
    /// What the client is told about an object that is accepted.
    pub warnings: Vec<String>,
}

/// A value as an error shows it: a text in quotes, anything else as JSON.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "null".to_owned(),
        Some(Value::String(text)) => format!("{text:?}"),
        Some(other) => other.to_string(),
    }
}

impl Report {
    fn push(&mut self, path: &str, reason: Reason, parts: &[&str]) {
        let words: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        let message = [&[reason.title()], &words[..]].concat().join(": ");
        let error = FieldError { field: path.to_owned(), reason, message };
        // The same fault is reported once.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The field must be set.
    pub(super) fn required(&mut self, field: &Field<'_>, detail: &str) {
        self.push(&field.path, Reason::Required, &[detail]);
    }

    /// Refuses an empty field. Returns whether it is set.
    pub(super) fn require(&mut self, field: &Field<'_>) -> bool {
        if field.is_empty() {
            self.required(field, "");
        }
        !field.is_empty()
    }

    /// The field's value is malformed.
    pub(super) fn invalid(&mut self, field: &Field<'_>, detail: &str) {
        self.push(&field.path, Reason::Invalid, &[&shown(field.value()), detail]);
    }

    /// A text, shown in quotes, is malformed.
    pub(super) fn invalid_text(&mut self, field: &Field<'_>, text: &str, detail: &str) {
        self.push(&field.path, Reason::Invalid, &[&format!("{text:?}"), detail]);
    }

    /// Each of the details is a fault of the text.
    pub(super) fn invalid_all(&mut self, field: &Field<'_>, text: &str, details: Vec<String>) {
        for detail in details {
            self.invalid_text(field, text, &detail);
        }
    }

    /// A value, shown as `shown`, is malformed or not allowed.
    pub(super) fn invalid_shown(&mut self, field: &Field<'_>, shown: &str, detail: &str) {
        self.push(&field.path, Reason::Invalid, &[shown, detail]);
    }

    /// Refuses a value that is none of the known ones. An unset field is not judged.
    pub(super) fn known(&mut self, field: &Field<'_>, known: &[&str]) {
        if field.is_set() && !known.contains(&field.text()) {
            self.unsupported(field, field, known);
        }
    }

    /// The value at one place is not supported in another, which the error names.
    pub(super) fn unsupported(&mut self, at: &Field<'_>, value: &Field<'_>, known: &[&str]) {
        let quoted: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.push(&at.path, Reason::NotSupported, &[&shown(value.value()), &detail]);
    }

    /// The field is not allowed here.
    pub(super) fn forbidden(&mut self, field: &Field<'_>, detail: &str) {
        self.push(&field.path, Reason::Forbidden, &[detail]);
    }

    /// The value exists already.
    pub(super) fn duplicate(&mut self, field: &Field<'_>, text: &str) {
        self.push(&field.path, Reason::Duplicate, &[&format!("{text:?}")]);
    }

    /// The text names nothing that exists.
    pub(super) fn not_found(&mut self, field: &Field<'_>, text: &str) {
        self.push(&field.path, Reason::NotFound, &[&format!("{text:?}")]);
    }

    /// The field has more bytes than allowed.
    pub(super) fn too_long(&mut self, path: &str, bytes: usize) {
        let detail = format!("may not be more than {bytes} bytes");
        self.push(path, Reason::TooLong, &[&detail]);
    }

    /// Refuses a change of the field.
    pub(super) fn immutable(&mut self, old: &Field<'_>, new: &Field<'_>) {
        if !old.equals(new) {
            self.invalid(new, "field is immutable");
        }
    }

    /// Warns the client about a field.
    pub(super) fn warn(&mut self, field: &Field<'_>, text: &str) {
        self.warnings.push(format!("{}: {text}", field.path));
    }
}
