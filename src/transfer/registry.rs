//! Images in a registry: the parts of the OCI distribution protocol that pull and push need.
//!
//! - `reference`: the parts of a reference;
//! - `connection`: certificates and proxies;
//! - `auth`: credentials and challenges;
//! - `access`: credentials and settings from options, environment and files;
//! - `fetch`: parts of blobs, for layers that are only partly on this host;
//! - `download`: blobs to files that an interrupted pull continues; `upload`: the other direction.
//!
//! Data from a registry is trusted only after its digest is verified. Credentials go to the
//! registry and to the token server that it names, over TLS or to this machine; a redirect is
//! followed without them.

use std::io::Read;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use ureq::http::{Response, Uri, header};
use ureq::{Agent, Body, RequestBuilder, ResponseExt};

use super::archive::FoundImage;
use super::archive::oci::image_of_registry;
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

pub mod access;
pub mod auth;
pub mod connection;
pub mod download;
pub mod fetch;
mod pace;
pub mod reference;
pub mod upload;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use auth::{Challenge, Credentials};
use connection::Connection;
use pace::Paced;
use reference::{Reference, is_loopback};

/// The longest manifest and configuration.
const DOCUMENT_MAX: u64 = 4 << 20;
/// The longest answer of a token server, and the longest error text that is read.
const ANSWER_MAX: u64 = 64 << 10;
/// Limit of redirects of one request.
const REDIRECTS_MAX: u32 = 5;
/// The timeout of a connection attempt.
const NO_CONNECTION: Duration = Duration::from_secs(30);
/// Timeouts while a caller waits: of silence, of a connection attempt, and of a whole request.
const SILENCE_PROMPT: Duration = Duration::from_secs(10);
const NO_CONNECTION_PROMPT: Duration = Duration::from_secs(5);
const PROMPT: Duration = Duration::from_secs(60);

/// Limits on the number of retries of a busy registry, and on the pause that it may request.
const BUSY_TRIES: u32 = 5;
const BUSY_MAX: Duration = Duration::from_secs(60);

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A registry, as used by one pull or push.
pub struct Registry {
    reference: Reference,
    agent: Agent,
    /// `http` or `https`.
    scheme: &'static str,
    /// Whether plain HTTP was requested.
    insecure: bool,
    prompt: bool,
    /// The time for which the registry may send no data.
    patience: Duration,
    credentials: Option<Credentials>,
    /// The `Authorization` header that the registry accepted last.
    authorization: Mutex<Option<String>>,
}

type Answer = std::result::Result<Response<Body>, ureq::Error>;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    message: Option<String>,
}

/// Whether the server does not speak TLS. An invalid certificate does not count as that.
fn is_plain(answer: &Answer) -> bool {
    let refused = |error: &ureq::Error| error.to_string().contains("invalid peer certificate");
    answer.as_ref().is_err_and(|error| !refused(error))
}

fn authorized<B>(request: RequestBuilder<B>, value: Option<&str>) -> RequestBuilder<B> {
    match value {
        Some(value) => request.header(header::AUTHORIZATION, value),
        None => request,
    }
}

/// Whether two addresses are of one server.
fn is_same_place(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or_else(|| default_port(uri));
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    }
}

/// The pause before a retry, if the response requests one.
fn pause_of(answer: &Response<Body>) -> Option<Duration> {
    if !matches!(answer.status().as_u16(), 429 | 503) {
        return None;
    }
    let said = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    // A date is ignored: it is for services that are down for longer.
    let pause = Duration::from_secs(said.trim().parse().ok()?);
    (pause <= BUSY_MAX).then_some(pause)
}

impl Registry {
    /// Connects to the registry and detects the protocol. Without `tls_verify`, certificates are
    /// not checked and plain HTTP is accepted. Plain HTTP is always accepted for registries on this
    /// machine.
    ///
    /// # Errors
    /// [`TransferError::Certificate`], [`TransferError::Proxy`].
    pub fn connect(
        reference: &Reference,
        credentials: Option<Credentials>,
        connection: &Connection,
    ) -> Result<Self> {
        let insecure = !connection.tls_verify;
        let may_be_plain = insecure || is_loopback(&reference.host);
        let tls = connection.tls()?;
        let prompt = connection.prompt;
        let (connect, silence) = match prompt {
            true => (NO_CONNECTION_PROMPT, SILENCE_PROMPT),
            false => (NO_CONNECTION, connection.patience),
        };
        let agent = |scheme: &str| -> Result<Agent> {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .https_only(!may_be_plain)
                .max_redirects(REDIRECTS_MAX)
                .tls_config(tls.clone())
                .proxy(connection.proxy(scheme, &reference.host)?)
                .user_agent(concat!("lamina/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(connect))
                .timeout_recv_response(Some(silence))
                .timeout_per_read(Some(silence))
                .timeout_per_write(Some(silence))
                .timeout_resolve(Some(connect))
                .timeout_global(prompt.then_some(PROMPT));
            Ok(config.build().into())
        };
        let (scheme, authorization) = ("https", Mutex::default());
        let secure = agent(scheme)?;
        let mut new = Self {
            reference: reference.clone(),
            agent: secure,
            scheme,
            insecure,
            prompt,
            patience: silence,
            credentials,
            authorization,
        };
        if may_be_plain && is_plain(&new.agent.get(new.url("")).call()) {
            new.scheme = "http";
            new.agent = agent(new.scheme)?;
        }
        Ok(new)
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.scheme, self.reference.address())
    }

    fn error(&self, what: impl Into<String>) -> TransferError {
        TransferError::Registry { reference: self.reference.text.clone(), what: what.into() }
    }

    /// Sends a request, and repeats it while the registry reports that it is busy.
    fn call(&self, request: &dyn Fn() -> Answer) -> Answer {
        let tries = if self.prompt { 0 } else { BUSY_TRIES };
        for _ in 0..tries {
            let answer = request()?;
            let Some(pause) = pause_of(&answer) else { return Ok(answer) };
            tracing::debug!(?pause, reference = %self.reference.text, "the registry is busy");
            std::thread::sleep(pause);
        }
        request()
    }

    fn get(&self, place: &str, header: (&str, &str)) -> Result<Response<Body>> {
        let url = self.place(place);
        self.ask(&|authorization| {
            let request = self.agent.get(&url).header(header.0, header.1);
            authorized(request, authorization).call()
        })
    }

    /// The URL of an object of the repository.
    fn place(&self, place: &str) -> String {
        self.url(&format!("{}/{place}", self.reference.path))
    }

    /// Sends a request, and repeats it once with the credentials that the registry requests.
    fn ask(&self, request: &dyn Fn(Option<&str>) -> Answer) -> Result<Response<Body>> {
        let send = |authorization: Option<&str>| {
            // Addresses of redirects may have secrets in their query.
            self.call(&|| request(authorization)).map_err(|error| match error {
                ureq::Error::RequireHttpsOnly(_) | ureq::Error::BadUri(_) => {
                    self.error("it redirects to an address without HTTPS")
                }
                error => self.error(error.to_string()),
            })
        };
        let known = self.authorization.lock().clone();
        let answer = send(known.as_deref())?;
        if answer.status() != 401 {
            return Ok(answer);
        }
        // Credentials are sent only if the registry itself requests them, not the target of a
        // redirect.
        let from = answer.get_uri();
        let own = self.url("").parse::<Uri>().ok();
        if !own.is_some_and(|own| is_same_place(&own, from)) {
            return Err(self.refused(answer));
        }
        let wanted = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let wanted = wanted.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let value = match (wanted, &self.credentials) {
            (Some(Challenge::Bearer { realm, parameters }), _) => {
                self.token(&realm, &parameters)?
            }
            (Some(Challenge::Basic), Some(credentials)) => credentials.basic(),
            _ => return Err(self.refused(answer)),
        };
        let again = send(Some(&value))?;
        *self.authorization.lock() = Some(value);
        Ok(again)
    }

    fn token(&self, realm: &str, parameters: &[(String, String)]) -> Result<String> {
        let place = realm.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next());
        let host = place.flatten().unwrap_or_default();
        // `user@localhost` would be a name on another machine.
        let is_local = is_loopback(host) && !host.contains('@');
        let is_plain = realm.starts_with("http://") && (is_local || self.insecure);
        if !realm.starts_with("https://") && !is_plain {
            return Err(self.error(format!("the token server {realm:?} is asked over HTTPS only")));
        }
        let request = || {
            let request = self.agent.get(realm);
            let request = parameters.iter().fold(request, |request, (k, v)| request.query(k, v));
            authorized(request, self.credentials.as_ref().map(Credentials::basic).as_deref()).call()
        };
        let failed = |error: ureq::Error| self.error(format!("token server {realm:?}: {error}"));
        let mut answer = self.call(&request).map_err(failed)?;
        if !answer.status().is_success() {
            return Err(self.refused(answer));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let token: Option<Token> = serde_json::from_slice(&body.map_err(failed)?).ok();
        let token = token.and_then(|found| found.token.or(found.access_token));
        let token = token.ok_or_else(|| self.error("the token server sent no token"))?;
        Ok(format!("Bearer {token}"))
    }

    /// Converts a response that is not a success to an error.
    fn refused(&self, mut answer: Response<Body>) -> TransferError {
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let refusal: Option<Refusal> = body.ok().and_then(|raw| serde_json::from_slice(&raw).ok());
        let reason = refusal.and_then(|refusal| refusal.errors.into_iter().next());
        let mut what = format!("the registry answered {status}");
        if let Some(Reason { code, message }) = reason {
            // Untrusted text: remove bytes that control a terminal.
            let shown = format!("{code}: {}", message.unwrap_or_default());
            let shown: String = shown.chars().filter(|c| !c.is_control()).take(300).collect();
            what = format!("{what}: {shown}");
        }
        if status == 401 && self.credentials.is_none() {
            what.push_str("; no credentials are known: use --creds or --authfile");
        }
        self.error(what)
    }

    fn document(&self, place: &str) -> Result<Vec<u8>> {
        let answer = self.get(place, ("accept", MANIFESTS))?;
        if answer.status() != 200 {
            return Err(self.refused(answer));
        }
        let mut raw = Vec::new();
        let body = Paced::new(answer.into_body().into_reader(), self.patience);
        let read = body.take(DOCUMENT_MAX + 1).read_to_end(&mut raw);
        read.map_err(|error| self.error(format!("{place}: {error}")))?;
        if raw.len() as u64 > DOCUMENT_MAX {
            return Err(self.error(format!("{place} has more than {DOCUMENT_MAX} bytes")));
        }
        Ok(raw)
    }

    /// Returns the image of the reference for this host: manifest and configuration, both verified.
    ///
    /// # Errors
    /// [`TransferError::Registry`].
    pub fn image(&self) -> Result<FoundImage> {
        let raw = self.document(&format!("manifests/{}", self.reference.version))?;
        if let Some(digest) = &self.reference.digest {
            let found = Digest::sha256(&raw);
            if *digest != found {
                return Err(self.error(format!("the manifest has the digest {found}")));
            }
        }
        let mut fetch = |kind: &str, digest: &str| self.document(&format!("{kind}/{digest}"));
        image_of_registry(raw, &mut fetch).map_err(|error| match error {
            error if error.is_of_content() => self.error(error.to_string()),
            other => other,
        })
    }
}
