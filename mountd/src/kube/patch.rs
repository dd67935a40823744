//! Patches of objects, as a client sends them and as Kubernetes carries them out.
//!
//! Four kinds: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch, and
//! server-side apply with its record of who manages which field. All work on an object as JSON,
//! without I/O; the schema of a kind says how its lists are merged. The result of a patch is not
//! validated: that it is still an object of the kind, under the same name, is for the caller.

mod apply;
mod field_set;
mod json;
mod managed;
mod merge;
mod strategic;
mod typed;

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::schema::{Type, kind_named};

pub use apply::track_update;
pub use managed::Conflict;

/// How a patch is meant.
#[derive(Clone, Copy, Debug)]
pub enum PatchType<'a> {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`.
    Apply {
        /// Who applies.
        writer: Writer<'a>,
        /// Whether the fields of other managers are taken over.
        force: bool,
    },
}

/// Who changes an object, and how: what `managedFields` records.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The parameter `fieldManager`.
    pub manager: &'a str,
    /// The part of the object that the request is for, such as `status`.
    pub subresource: Option<&'a str>,
    /// The time as RFC 3339, in seconds.
    pub now: &'a str,
}

/// Why a patch is refused.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch is not what its media type promises.
    #[error("{0}")]
    Malformed(String),
    /// Fields that the patch sets belong to other managers.
    #[error("{message}")]
    Conflict {
        /// The text for a person.
        message: String,
        /// The fields, one by one.
        causes: Vec<Conflict>,
    },
    /// The patch asks for more work than the server does in one request.
    #[error("{0}")]
    TooLarge(String),
    /// The kind takes no patch of this type.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )]
    Unsupported,
    /// The patch does not fit the object. `Status` has no details then: kubectl writes "The request
    /// is invalid" with the message.
    #[error("{0}")]
    Unprocessable(String),
    /// The applied object does not fit its kind.
    #[error("{0}")]
    Schema(String),
}

impl PatchError {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Conflict { .. } => 409,
            Self::TooLarge(_) => 413,
            Self::Unsupported => 415,
            Self::Unprocessable(_) => 422,
            // Kubernetes has it so, and kubectl prints the message without a reason then.
            Self::Schema(_) => 500,
        }
    }

    /// The reason of the answer, as `Status` has it; none for an internal error.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "BadRequest",
            Self::Conflict { .. } => "Conflict",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::Unsupported => "UnsupportedMediaType",
            Self::Unprocessable(_) => "Invalid",
            Self::Schema(_) => "",
        }
    }
}

/// The object after the patch.
///
/// `current` is the object as it is stored, with its `managedFields`; `None` if it does not exist,
/// which only an apply can do with. An apply writes `managedFields` itself, and returns `current`
/// as it is if nothing changes. After any other patch, the caller calls [`track_update`].
///
/// # Errors
///
/// [`PatchError`], with the status and words of Kubernetes.
pub fn patch(
    kind: &str,
    current: Option<&Value>,
    patch: &Value,
    how: &PatchType<'_>,
) -> Result<Value, PatchError> {
    let object = || current.cloned().unwrap_or_else(|| Value::Object(Default::default()));
    match how {
        PatchType::Json => json::apply(object(), patch),
        PatchType::Merge if patch.is_object() => Ok(merge::apply(object(), patch)),
        PatchType::Merge => Err(not_an_object(patch)),
        PatchType::Strategic => {
            if kind_named(kind).is_none_or(|kind| kind.is_custom()) {
                return Err(PatchError::Unsupported);
            }
            let Value::Object(patch) = patch else { return Err(not_an_object(patch)) };
            let mut object = object();
            if let Value::Object(fields) = &mut object {
                strategic::apply(fields, patch, Type::of_kind(kind).as_ref())?;
            }
            Ok(object)
        }
        PatchType::Apply { writer, force } => apply::apply(kind, current, patch, (*writer, *force)),
    }
}

fn not_an_object(patch: &Value) -> PatchError {
    let start: String = patch.to_string().chars().take(64).collect();
    PatchError::Malformed(format!("invalid patch: expected an object, found {start}"))
}
