//! The calls of Docker's volume plugin protocol, version 1.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::http::{self, Reply};
use crate::volume::error::{Result, VolumeError};

/// The longest text of a plugin in an error.
const TEXT_MAX: usize = 512;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A plugin that is restarted is waited for.
    pub restart: Duration,
    /// For calls that need no volume.
    pub probe: Duration,
    /// For calls that change nothing on a disk.
    pub short: Duration,
    /// For `Create` and `Mount`.
    pub long: Duration,
}

impl Default for Patience {
    /// Somewhat less than `lamina serve` lets its clients wait.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { restart: seconds(2), probe: seconds(5), short: seconds(45), long: seconds(100) }
    }
}

/// A plugin that was found.
#[derive(Debug)]
pub(super) struct Plugin {
    pub name: String,
    pub socket: PathBuf,
    pub patience: Patience,
}

/// Why a call failed.
enum Failed {
    /// The plugin answered with an error.
    Said(String),
    /// There was no answer, or none that can be read.
    Broken(String),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<&'a BTreeMap<String, String>>,
}

/// All fields of all replies. Go writes `null` for what is empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    err: Option<String>,
    implements: Option<Vec<String>>,
    capabilities: Option<Capabilities>,
    mountpoint: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: Option<String>,
}

/// Whether volumes are those of one host or of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    Local,
    Global,
}

impl Plugin {
    /// Requires that the plugin answers and has volumes.
    ///
    /// # Errors
    /// [`VolumeError::Plugin`].
    pub(super) fn activate(&self) -> Result<()> {
        let answer = self.called("Plugin.Activate", None, self.patience.probe)?;
        let all = answer.implements.unwrap_or_default();
        if all.iter().any(|one| one == "VolumeDriver") {
            return Ok(());
        }
        Err(self.error("Plugin.Activate", format!("it has no volumes: it implements {all:?}")))
    }

    /// Where the volumes of the plugin are. As for dockerd, a plugin that does not say has those of
    /// this host.
    pub(super) fn scope(&self) -> Scope {
        let answer = self.call("VolumeDriver.Capabilities", None, self.patience.probe);
        let scope = answer.ok().and_then(|answer| answer.capabilities?.scope);
        match scope.is_some_and(|scope| scope.eq_ignore_ascii_case("global")) {
            true => Scope::Global,
            false => Scope::Local,
        }
    }

    /// # Errors
    /// [`VolumeError::Plugin`].
    pub(super) fn create(&self, volume: &str, opts: &BTreeMap<String, String>) -> Result<()> {
        let request = Request { name: Some(volume), id: None, opts: Some(opts) };
        self.called("VolumeDriver.Create", Some(&request), self.patience.long).map(drop)
    }

    /// Removes a volume. One that the plugin does not have is removed.
    ///
    /// # Errors
    /// [`VolumeError::Plugin`].
    pub(super) fn remove(&self, volume: &str) -> Result<()> {
        let (call, request) = ("VolumeDriver.Remove", named(volume));
        match self.call(call, Some(&request), self.patience.short) {
            Ok(_) => Ok(()),
            Err(Failed::Broken(reason)) => Err(self.error(call, reason)),
            // No text says that it is gone: the protocol has none.
            Err(Failed::Said(reason)) => {
                match self.call("VolumeDriver.Get", Some(&request), self.patience.short) {
                    Err(Failed::Said(_)) => Ok(()),
                    _ => Err(self.error(call, reason)),
                }
            }
        }
    }

    /// Mounts a volume for an id, and returns its directory as the plugin names it.
    ///
    /// # Errors
    /// [`VolumeError::Plugin`].
    pub(super) fn mount(&self, volume: &str, id: &str) -> Result<PathBuf> {
        let call = "VolumeDriver.Mount";
        let request = Request { id: Some(id), ..named(volume) };
        let answer = self.called(call, Some(&request), self.patience.long)?;
        let told = |answer: Answer| answer.mountpoint.filter(|path| !path.is_empty());
        if let Some(path) = told(answer) {
            return Ok(path.into());
        }
        let answer = self.called("VolumeDriver.Path", Some(&named(volume)), self.patience.short)?;
        let none = || self.error(call, "it names no mountpoint".to_owned());
        told(answer).map(PathBuf::from).ok_or_else(none)
    }

    /// Ends a mount.
    ///
    /// # Errors
    /// [`VolumeError::Plugin`].
    pub(super) fn unmount(&self, volume: &str, id: &str) -> Result<()> {
        let request = Request { id: Some(id), ..named(volume) };
        self.called("VolumeDriver.Unmount", Some(&request), self.patience.short).map(drop)
    }

    /// An error of a call.
    pub(super) fn error(&self, call: &'static str, reason: String) -> VolumeError {
        VolumeError::Plugin { plugin: self.name.clone(), call, reason }
    }

    fn called(
        &self,
        call: &'static str,
        request: Option<&Request<'_>>,
        limit: Duration,
    ) -> Result<Answer> {
        self.call(call, request, limit).map_err(|failed| match failed {
            Failed::Said(reason) | Failed::Broken(reason) => self.error(call, reason),
        })
    }

    fn call(
        &self,
        call: &'static str,
        request: Option<&Request<'_>>,
        limit: Duration,
    ) -> std::result::Result<Answer, Failed> {
        let body = match request {
            Some(request) => serde_json::to_vec(request),
            None => Ok(b"{}".to_vec()),
        };
        let body = body.map_err(|error| Failed::Broken(error.to_string()))?;
        let path = format!("/{call}");
        let deadline = Instant::now() + self.patience.restart.min(limit);
        let reply = loop {
            let failed = match http::post(&self.socket, &path, &body, limit) {
                Ok(reply) => break reply,
                Err(error) => error,
            };
            // Nobody received the request. It is not known of other errors.
            let is_away = failed.kind() == io::ErrorKind::ConnectionRefused
                || failed.kind() == io::ErrorKind::NotFound;
            if !is_away || Instant::now() >= deadline {
                return Err(Failed::Broken(self.broken(&failed, limit)));
            }
            std::thread::sleep(PAUSE);
        };
        read(reply)
    }

    fn broken(&self, error: &io::Error, limit: Duration) -> String {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::TimedOut => format!("no reply within {limit:?}"),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                format!("no process listens on {socket}: start the plugin")
            }
            _ => error.to_string(),
        }
    }
}

const fn named(volume: &str) -> Request<'_> {
    Request { name: Some(volume), id: None, opts: None }
}

fn read(reply: Reply) -> std::result::Result<Answer, Failed> {
    let is_object = reply.body.trim_ascii_start().starts_with(b"{");
    let answer = serde_json::from_slice::<Answer>(&reply.body);
    let answer = answer.map_err(|error| error.to_string()).and_then(|answer| match is_object {
        true => Ok(answer),
        false => Err("not an object".to_owned()),
    });
    let said = |answer: &Answer| answer.err.clone().filter(|text| !text.is_empty());
    match (reply.code, answer) {
        (_, Ok(answer)) if said(&answer).is_some() => {
            Err(Failed::Said(shown(&said(&answer).unwrap_or_default())))
        }
        (200, Ok(answer)) => Ok(answer),
        (200, Err(error)) => Err(Failed::Broken(format!("the reply is not JSON: {error}"))),
        (code, _) => {
            let text = shown(&String::from_utf8_lossy(&reply.body));
            Err(Failed::Said(format!("HTTP status {code}: {text}")))
        }
    }
}

/// A text of a plugin, without what would change a terminal.
fn shown(text: &str) -> String {
    let mut short: String = text.trim().chars().take(TEXT_MAX).collect();
    short = short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, body: &str) -> std::result::Result<Answer, String> {
        let reply = Reply { code, body: body.as_bytes().to_vec() };
        read(reply).map_err(|failed| match failed {
            Failed::Said(text) => format!("said {text}"),
            Failed::Broken(text) => format!("broken {text}"),
        })
    }

    #[test]
    fn replies_are_read_as_go_writes_them() {
        let mounted = answer(200, "{\"Mountpoint\":\"/m\",\"Err\":\"\",\"Later\":[{}]}\n").unwrap();
        assert_eq!(mounted.mountpoint.unwrap(), "/m");
        assert!(answer(200, "{\"Err\":null,\"Mountpoint\":null}").unwrap().mountpoint.is_none());
        let global = answer(200, "{\"Capabilities\":{\"Scope\":\"Global\"}}").unwrap();
        assert_eq!(global.capabilities.unwrap().scope.unwrap(), "Global");
        for (code, body, word) in [
            (200, "{\"Err\":\"no\\u001b[2J\"}", "said no [2J"),
            (500, "{\"Err\":\"no\"}", "said no"),
            (404, "404 page not found\n", "said HTTP status 404: 404 page not found"),
            (500, "{}", "said HTTP status 500"),
            (200, "", "broken the reply is not JSON"),
            (200, "[]", "broken the reply is not JSON"),
            (200, "[null,null,null,\"/m\"]", "broken the reply is not JSON"),
            (200, "{\"Mountpoint\":1}", "broken the reply is not JSON"),
            (200, "\u{fffd}", "broken the reply is not JSON"),
        ] {
            let Err(error) = answer(code, body) else { panic!("{body}") };
            assert!(error.starts_with(word), "{body}: {error}");
        }
        let Err(long) = answer(200, &format!("{{\"Err\":\"{}\"}}", "x".repeat(9999))) else {
            panic!("an answer")
        };
        assert!(long.len() < 600);
        let deep = "[".repeat(100_000);
        assert!(answer(200, &format!("{{\"Volume\":{deep}")).is_err());
    }
}
