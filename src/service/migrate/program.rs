//! The program `podman`, which works without a service, with the configuration of its user.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{MigrateError, parsed};
use super::request::EngineKind;
use crate::types::Digest;

const NAME: &str = "podman";
/// Attempts to list containers while some of them end.
const TRIES: usize = 5;

/// The program.
pub(super) struct Program;

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "Id")]
    id: String,
}

fn failed(error: io::Error) -> MigrateError {
    let engine = EngineKind::Podman;
    if error.kind() == io::ErrorKind::NotFound {
        return MigrateError::NotInstalled { engine, program: NAME.to_owned() };
    }
    let (what, reason) = ("to start".to_owned(), error.to_string());
    MigrateError::Refused { engine, what, reason }
}

impl Program {
    /// Calls it, and returns its output.
    pub(super) fn call(&self, args: &[&str]) -> Result<Vec<u8>, MigrateError> {
        let mut command = Command::new(NAME);
        let done = command.args(args).stdin(Stdio::null()).output().map_err(failed)?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let text = String::from_utf8_lossy(&done.stderr);
        let last = text.trim().lines().last().unwrap_or_default();
        let reason = crate::tree::error::shown(last.trim_start_matches("Error: ").as_bytes());
        let what = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(MigrateError::Refused { engine: EngineKind::Podman, what, reason })
    }

    /// Calls it, and reads its output.
    pub(super) fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T, MigrateError> {
        parsed(EngineKind::Podman, &args.join(" "), &self.call(args)?)
    }

    /// Calls it for a list. It prints nothing, or `null`, for an empty one.
    pub(super) fn list<T: DeserializeOwned>(&self, args: &[&str]) -> Result<Vec<T>, MigrateError> {
        let raw = self.call(args)?;
        if raw.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let found: Option<Vec<T>> = parsed(EngineKind::Podman, &args.join(" "), &raw)?;
        Ok(found.unwrap_or_default())
    }

    /// All containers with their mounts, which the list of containers does not have.
    pub(super) fn containers<T: DeserializeOwned>(&self) -> Result<Vec<T>, MigrateError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let rows: Vec<Row> = self.list(&["ps", "--all", "--format", "json"])?;
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let ids = rows.iter().map(|row| row.id.as_str());
            let args: Vec<&str> = ["container", "inspect", "--"].into_iter().chain(ids).collect();
            match self.list(&args) {
                // One of them was removed in between.
                Err(MigrateError::Refused { .. }) if tries > 0 => {}
                found => return found,
            }
        }
    }

    /// An archive with an image, in the form that keeps its configuration as it is.
    pub(super) fn save(&self, id: &Digest) -> Result<Box<dyn Read>, MigrateError> {
        let inspected: Vec<Value> = self.json(&["image", "inspect", id.hex()])?;
        let kind = inspected.first().and_then(|one| one.get("ManifestType")?.as_str());
        let is_docker = kind.is_some_and(|kind| kind.contains("docker"));
        let format = if is_docker { "docker-archive" } else { "oci-archive" };
        let mut command = Command::new(NAME);
        command.args(["save", "--quiet", "--format", format, id.hex()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| failed(io::Error::other("it has no output")))?;
        Ok(Box::new(Saving { child, out, is_done: false }))
    }
}

/// The output of `podman save`. It ends well only if the program did.
struct Saving {
    child: Child,
    out: ChildStdout,
    is_done: bool,
}

impl Read for Saving {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.out.read(buf)?;
        if len == 0 && !buf.is_empty() && !self.is_done {
            self.is_done = true;
            let status = self.child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("podman save ended with {status}")));
            }
        }
        Ok(len)
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // It may have ended by itself.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            tracing::debug!(%error, "podman save");
        }
    }
}
