//! The API of Docker over its Unix socket, which podman serves too.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{MigrateError, parsed};
use super::request::EngineKind;
use crate::volume::plugin::http::{self, Request};

/// The longest wait for a reply. `GET /info` takes a second on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest wait for the next bytes of an archive: dockerd makes a copy of the image first.
const STREAM_PATIENCE: Duration = Duration::from_secs(1800);
/// The longest reply. A container is some 3 KiB in a list.
const REPLY_MAX: usize = 256 << 20;

/// A client.
pub(super) struct Api {
    pub kind: EngineKind,
    pub socket: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

const fn request<'a>(method: &'static str, path: &'a str) -> Request<'a> {
    Request { method, path, media_type: "application/json", body: b"" }
}

impl Api {
    fn away(&self, error: std::io::Error) -> MigrateError {
        MigrateError::Away { engine: self.kind, socket: self.socket.clone(), error }
    }

    fn refused(&self, what: &str, code: u16, body: &[u8]) -> MigrateError {
        let message = serde_json::from_slice::<Message>(body).map(|found| found.message);
        let text = message.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
        let reason = format!("{} (HTTP {code})", crate::tree::error::shown(text.trim().as_bytes()));
        MigrateError::Refused { engine: self.kind, what: what.to_owned(), reason }
    }

    /// Sends a request, and returns the body of the reply.
    pub(super) fn call(&self, method: &'static str, path: &str) -> Result<Vec<u8>, MigrateError> {
        let reply = http::send(&self.socket, &request(method, path), PATIENCE, REPLY_MAX)
            .map_err(|error| self.away(error))?;
        if (200..300).contains(&reply.code) {
            return Ok(reply.body);
        }
        Err(self.refused(&format!("{method} {path}"), reply.code, &reply.body))
    }

    /// Sends a request, and reads the reply.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
    ) -> Result<T, MigrateError> {
        parsed(self.kind, path, &self.call(method, path)?)
    }

    /// The body of a reply as a stream.
    pub(super) fn stream(&self, path: &str) -> Result<Box<dyn Read>, MigrateError> {
        let opened = http::open(&self.socket, &request("GET", path), STREAM_PATIENCE);
        let (code, mut body) = opened.map_err(|error| self.away(error))?;
        if code == 200 {
            return Ok(Box::new(body));
        }
        let mut text = Vec::new();
        body.by_ref().take(4096).read_to_end(&mut text).map_err(|error| self.away(error))?;
        Err(self.refused(&format!("GET {path}"), code, &text))
    }
}
