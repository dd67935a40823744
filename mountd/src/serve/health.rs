//! The front end for monitoring: `GET /metrics` and `GET /healthz`.

use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::metrics::{MEDIA_TYPE, Outcome};
use super::sample::Sampler;

const TEXT: &str = "text/plain; charset=utf-8";

/// The routes of its socket.
pub fn router(sampler: Sampler) -> Router {
    Router::new().fallback(handle).with_state(sampler)
}

async fn handle(State(sampler): State<Sampler>, request: Request) -> Response {
    let start = Instant::now();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (call, code, kind, text) = match request.uri().path() {
        "/metrics" | "/healthz" if !is_read => {
            ("unknown", StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".to_owned())
        }
        "/metrics" => {
            // Without an answer the last list is shown.
            sampler.list().await;
            match sampler.metrics.render() {
                Ok(text) => ("metrics", StatusCode::OK, MEDIA_TYPE, text),
                Err(_) => ("metrics", StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
            }
        }
        "/healthz" if sampler.list().await => ("healthz", StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/healthz" => {
            let text = "the volumes cannot be read\n".to_owned();
            ("healthz", StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
        _ => {
            let text = "there are /metrics and /healthz\n".to_owned();
            ("unknown", StatusCode::NOT_FOUND, TEXT, text)
        }
    };
    let outcome = if code == StatusCode::OK { Outcome::Ok } else { Outcome::Error };
    sampler.metrics.answered("metrics", call, outcome, start.elapsed());
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
