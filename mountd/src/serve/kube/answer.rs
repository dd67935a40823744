//! Responses.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::negotiate::Shape;
use super::route::header_text;
use crate::kube::kinds::Kind;
use crate::kube::objects::List;
use crate::kube::status::Failure;
use crate::kube::table::{Include, table};

/// The most bytes of all warnings of an answer.
const WARNINGS_MAX: usize = 4096;

/// How objects are shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    /// The form.
    pub shape: Shape,
    /// What rows of a table carry.
    pub include: Include,
    /// Whether the JSON is indented.
    pub is_pretty: bool,
}

/// An answer with any body.
pub fn raw(code: u16, media_type: &str, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// An answer of JSON.
pub fn json(code: u16, value: &Value, view: View) -> Response<Body> {
    let text = match view.is_pretty {
        true => format!("{value:#}\n"),
        false => format!("{value}\n"),
    };
    raw(code, &view.shape.media_type(), text)
}

/// The answer to a request that failed.
pub fn failed(failure: &Failure, view: View) -> Response<Body> {
    let view = View { shape: Shape::Objects, ..view };
    let mut answer = json(failure.code, &failure.status(), view);
    if let Some(seconds) = failure.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// Adds warnings, as many as there is room for.
pub fn warn(answer: &mut Response<Body>, warnings: &[String]) {
    let mut len = 0;
    for warning in warnings {
        let text = header_text(warning).replace('\\', "\\\\").replace('"', "\\\"");
        len += text.len();
        if len > WARNINGS_MAX {
            break;
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// The metadata of an object alone.
pub fn metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

/// An object in the form of a view.
pub fn object(kind: &'static Kind, object: Value, view: View) -> Value {
    match view.shape {
        Shape::Table => {
            let version = object.pointer("/metadata/resourceVersion");
            let meta = json!({"resourceVersion": version});
            table(kind, std::slice::from_ref(&object), &meta, view.include, true)
        }
        Shape::Metadata => metadata(&object),
        Shape::Objects | Shape::Discovery(_) => object,
    }
}

/// A list in the form of a view.
pub fn list(kind: &'static Kind, list: List, view: View) -> Value {
    let mut meta = json!({"resourceVersion": list.version.to_string()});
    if let Some(map) = meta.as_object_mut() {
        if !list.token.is_empty() {
            map.insert("continue".to_owned(), list.token.into());
        }
        if let Some(rest) = list.rest {
            map.insert("remainingItemCount".to_owned(), rest.into());
        }
    }
    match view.shape {
        Shape::Table => table(kind, &list.items, &meta, view.include, true),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "items": list.items.iter().map(metadata).collect::<Vec<_>>(),
        }),
        Shape::Objects | Shape::Discovery(_) => json!({
            "kind": format!("{}List", kind.kind),
            "apiVersion": kind.api_version(),
            "metadata": meta,
            "items": list.items,
        }),
    }
}
