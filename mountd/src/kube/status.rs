//! Errors of the API, as `metav1.Status` carries them.
//!
//! Clients act on the code, the reason and the details, and people read the message: these are
//! worded as the API server words them.

use laminafs::service::CatalogError;
use serde_json::{Value, json};

use super::kinds::{Kind, Resource};

/// An error in one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Its path, such as `spec.capacity`.
    pub field: String,
    /// Its type, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// What is said of it, without the path: `Required value: ...`.
    pub message: String,
}

impl FieldError {
    /// A field that must be there.
    #[must_use]
    pub fn required(field: &str, detail: &str) -> Self {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        Self { field: field.to_owned(), reason: "FieldValueRequired", message }
    }

    /// A value that is not allowed.
    #[must_use]
    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {value}: {detail}");
        Self { field: field.to_owned(), reason: "FieldValueInvalid", message }
    }

    /// A field that may not be set or changed now.
    #[must_use]
    pub fn forbidden(field: &str, detail: &str) -> Self {
        let message = format!("Forbidden: {detail}");
        Self { field: field.to_owned(), reason: "FieldValueForbidden", message }
    }

    fn cause(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The status code of HTTP.
    pub code: u16,
    /// The reason in one word; empty for none.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// `details` of the status.
    pub details: Option<Value>,
    /// When to ask again, in seconds.
    pub retry_after: Option<u32>,
}

/// The result of a request.
pub type Answer<T> = Result<T, Failure>;

fn details(kind: &'static Kind, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural});
    if let (Some(map), false) = (details.as_object_mut(), kind.group.is_empty()) {
        map.insert("group".to_owned(), kind.group.into());
    }
    details
}

impl Failure {
    /// An error of a code and a reason.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None }
    }

    fn about(self, kind: &'static Kind, name: &str) -> Self {
        Self { details: Some(details(kind, name)), ..self }
    }

    /// There is no such object.
    #[must_use]
    pub fn not_found(kind: &'static Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.resource());
        Self::new(404, "NotFound", message).about(kind, name)
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn no_path() -> Self {
        let message = "the server could not find the requested resource";
        Self { details: Some(json!({})), ..Self::new(404, "NotFound", message) }
    }

    /// An object of this name exists.
    #[must_use]
    pub fn exists(kind: &'static Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.resource());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// Another client changed the object.
    #[must_use]
    pub fn changed(kind: &'static Kind, name: &str) -> Self {
        let text = "the object has been modified; please apply your changes to the latest version \
                    and try again";
        Self::conflict(kind, name, text)
    }

    /// The request does not fit the object as it is.
    #[must_use]
    pub fn conflict(kind: &'static Kind, name: &str, why: &str) -> Self {
        let what = kind.resource();
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// Fields of an object are wrong.
    #[must_use]
    pub fn invalid(kind: &'static Kind, name: &str, errors: &[FieldError]) -> Self {
        let shown: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let shown = match shown.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let full = match kind.group {
            "" => kind.kind.to_owned(),
            group => format!("{}.{group}", kind.kind),
        };
        let causes: Vec<Value> = errors.iter().map(FieldError::cause).collect();
        let mut details = details(kind, name);
        if let Some(map) = details.as_object_mut() {
            map.insert("kind".to_owned(), kind.kind.into());
            map.insert("causes".to_owned(), causes.into());
        }
        let message = format!("{full} {name:?} is invalid: {shown}");
        Self { details: Some(details), ..Self::new(422, "Invalid", message) }
    }

    /// The request is refused by a rule.
    #[must_use]
    pub fn forbidden(kind: &'static Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.resource());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// A version is older than the log of changes.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A limit is reached.
    pub fn too_many(message: impl Into<String>) -> Self {
        let details = Some(json!({"retryAfterSeconds": 1}));
        let failure = Self::new(429, "TooManyRequests", message);
        Self { details, retry_after: Some(1), ..failure }
    }

    /// The object is too large.
    #[must_use]
    pub fn too_large(what: &str) -> Self {
        let message = format!("Request entity too large: {what}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// The host failed.
    #[must_use]
    pub fn internal(what: &str) -> Self {
        let message = format!("Internal error occurred: {what}");
        let details = Some(json!({"causes": [{"message": what}]}));
        Self { details, ..Self::new(500, "InternalError", message) }
    }

    /// The body of the answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if let Some(map) = status.as_object_mut() {
            if !self.reason.is_empty() {
                map.insert("reason".to_owned(), self.reason.into());
            }
            if let Some(details) = &self.details {
                map.insert("details".to_owned(), details.clone());
            }
            map.insert("code".to_owned(), self.code.into());
        }
        status
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        Self::internal(&error.to_string())
    }
}

/// The body of an answer to a deletion that is done.
#[must_use]
pub fn deleted(kind: &'static Kind, name: &str, uid: &str) -> Value {
    let mut details = details(kind, name);
    if let Some(map) = details.as_object_mut() {
        map.insert("uid".to_owned(), uid.into());
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}

impl From<Resource> for Value {
    fn from(resource: Resource) -> Self {
        resource.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(record: &str) -> &'static Kind {
        Kind::of_record(record).unwrap()
    }

    #[test]
    fn errors_name_the_resource_with_its_group() {
        let status = Failure::not_found(kind("storageclasses.storage.k8s.io"), "fast").status();
        assert_eq!(status["message"], "storageclasses.storage.k8s.io \"fast\" not found");
        let details = json!({"name": "fast", "group": "storage.k8s.io", "kind": "storageclasses"});
        assert_eq!(status["details"], details);
        assert_eq!((&status["code"], &status["reason"]), (&json!(404), &json!("NotFound")));
    }

    #[test]
    fn an_invalid_object_lists_its_fields() {
        let errors = [
            FieldError::required("spec.capacity", ""),
            FieldError::forbidden("spec.source", "is immutable"),
        ];
        let kind = kind("persistentvolumes");
        let one = Failure::invalid(kind, "a", &errors[..1]);
        let text = "PersistentVolume \"a\" is invalid: spec.capacity: Required value";
        assert_eq!(one.message, text);
        let both = Failure::invalid(kind, "a", &errors);
        let text = "PersistentVolume \"a\" is invalid: [spec.capacity: Required value, \
                    spec.source: Forbidden: is immutable]";
        assert_eq!(both.message, text);
        let causes = &both.status()["details"]["causes"];
        assert_eq!(causes[1]["reason"], "FieldValueForbidden");
    }
}
