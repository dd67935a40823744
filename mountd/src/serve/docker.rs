//! The front end for dockerd and podman: Docker's volume plugin protocol.
//!
//! What its clients rely on, as measured with dockerd 20.10 and podman 4.3:
//!
//! - dockerd drops the labels and options of a volume if `Get` answers with an error. So `Get`
//!   answers with an error only where there is no such volume; if that cannot be found out, the
//!   connection is closed without a reply, and dockerd tries again.
//! - dockerd repeats a request whose connection broke without its body, which it has consumed. A
//!   `Get` without a name is such a repetition, and has no reply: dockerd gives up after 15 s, and
//!   keeps the volume.
//! - The ids of mounts are a set, and some are never unmounted. The service records them; they do
//!   not keep a volume from its removal.
//! - dockerd checks no names.
//! - A container that could not be started does not unmount. A mount whose client is gone is
//!   undone after [`UNCLAIMED`], unless the id comes again.

pub mod protocol;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use laminafs::service::Refusal;
use laminafs::service::volumes::NewVolume;
use laminafs::types::VolumeName;
use serde::Serialize;

use self::protocol::{
    Activated, Capable, Described, Endpoint, Got, List, Listed, MEDIA_TYPE, Mounted, Outcome,
    Request, Scope, Status,
};
use super::calls::{Calls, Kind, Order};
use super::http::{self, Silence};
use super::metrics::{Metrics, Outcome as Counted};
use super::volumes::{Volume, Volumes};

/// How long a client waits for `Create` and `Mount`: dockerd gives up after 120 s.
const LONG: Duration = Duration::from_secs(110);
/// How long a client waits for other calls: dockerd gives up after 60 s.
const SHORT: Duration = Duration::from_secs(50);
/// The longest wait for a record, after which there is no reply.
const RECORD: Duration = Duration::from_secs(20);
/// After this time a mount that nobody waited for is undone.
const UNCLAIMED: Duration = Duration::from_secs(120);
/// The option of Docker that names the driver of Lamina.
const DRIVER: &str = "driver";
/// The options that `local` cannot serve, and the driver that does.
const LIMITS: [&str; 2] = ["size", "inodes"];
const LIMITED: &str = "image";
/// What is said of a request without a name.
const NO_NAME: &str = "the request names no volume: it was interrupted and repeated";
/// The longest id of a mount. dockerd's have 64 digits.
const ID_MAX: usize = 256;

/// What the limits of a front end are, for tests to shorten.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For `Create` and `Mount`.
    pub long: Duration,
    /// For other changes.
    pub short: Duration,
    /// For records.
    pub record: Duration,
    /// Until an unclaimed mount is undone.
    pub unclaimed: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { long: LONG, short: SHORT, record: RECORD, unclaimed: UNCLAIMED }
    }
}

/// The front end.
#[derive(Clone)]
pub struct Docker {
    volumes: Arc<dyn Volumes>,
    calls: Arc<Calls>,
    metrics: Arc<Metrics>,
    patience: Patience,
    /// Mounts that nobody waited for.
    unclaimed: Arc<Mutex<HashSet<(VolumeName, String)>>>,
}

/// What a client receives. With [`Counted::Silence`] it is nothing: the connection is closed.
struct Answer {
    code: StatusCode,
    body: Vec<u8>,
    outcome: Counted,
}

/// Why a call fails.
enum Fault {
    /// A sentence for the client.
    Said(StatusCode, String),
    /// It is not known whether the volume exists.
    Unknown(String),
}

type Answered<T> = Result<T, Fault>;

fn said(text: impl ToString) -> Fault {
    // podman reads `Err` only where the code is not 200; dockerd reads it either way.
    Fault::Said(StatusCode::INTERNAL_SERVER_ERROR, text.to_string())
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        said(refusal)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Docker {
    /// The front end over the volumes of a data root.
    #[must_use]
    pub fn new(
        volumes: Arc<dyn Volumes>,
        calls: Arc<Calls>,
        metrics: Arc<Metrics>,
        patience: Patience,
    ) -> Self {
        Self { volumes, calls, metrics, patience, unclaimed: Arc::default() }
    }

    /// The routes of its socket.
    pub fn router(self) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    async fn answer(&self, endpoint: Endpoint, body: &[u8]) -> Answer {
        let request = match endpoint {
            // Their bodies say nothing.
            Endpoint::Activate | Endpoint::Capabilities | Endpoint::List => Ok(Request::default()),
            _ => protocol::request(body),
        };
        let answered = match request {
            Ok(request) => self.called(endpoint, request).await,
            Err(reason) if endpoint == Endpoint::Get => Err(Fault::Unknown(reason)),
            Err(reason) => Err(Fault::Said(StatusCode::BAD_REQUEST, reason)),
        };
        match answered {
            Ok(body) => Answer { code: StatusCode::OK, body, outcome: Counted::Ok },
            Err(Fault::Said(code, reason)) => {
                // dockerd asks for each volume that it is about to create.
                if endpoint != Endpoint::Get {
                    tracing::info!("{} failed: {reason}", endpoint.name());
                }
                refused(code, reason)
            }
            Err(Fault::Unknown(reason)) if endpoint == Endpoint::Get => silent(endpoint, &reason),
            Err(Fault::Unknown(reason)) => {
                tracing::error!("{} failed: {reason}", endpoint.name());
                refused(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
        }
    }

    async fn called(&self, endpoint: Endpoint, request: Request) -> Answered<Vec<u8>> {
        let ok = || json(&Outcome::default());
        match endpoint {
            Endpoint::Activate => json(&Activated { implements: ["VolumeDriver"] }),
            Endpoint::Capabilities => json(&Capable { capabilities: Scope { scope: "local" } }),
            Endpoint::Create => self.create(request).await.and_then(|()| ok()),
            Endpoint::Remove => self.remove(request).await.and_then(|()| ok()),
            Endpoint::Mount => json(&self.mount(request).await?),
            Endpoint::Unmount => self.unmount(request).await.and_then(|()| ok()),
            Endpoint::Path => {
                let volume = self.described(request).await?;
                json(&Mounted { mountpoint: volume.mountpoint, err: String::new() })
            }
            Endpoint::Get => {
                let volume = self.described(request).await?;
                json(&Got { volume, err: String::new() })
            }
            Endpoint::List => json(&List { volumes: self.list().await?, err: String::new() }),
        }
    }

    /// Runs a call that changes a volume.
    async fn change<T: Send + 'static>(
        &self,
        order: Order,
        work: impl FnOnce(&dyn Volumes) -> Result<T, Refusal> + Send + 'static,
        unclaimed: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) -> Answered<T> {
        let volumes = Arc::clone(&self.volumes);
        let name = order.lane.1.clone();
        let done = self.calls.run(order, move || work(&*volumes), unclaimed).await;
        let subject = |error| match name {
            Some(name) => said(format!("volume {:?}: {error}", name.as_str())),
            None => said(format!("volumes: {error}")),
        };
        Ok(done.map_err(subject)??)
    }

    async fn create(&self, request: Request) -> Answered<()> {
        let name = volume_name(&request)?;
        let mut options = request.opts.unwrap_or_default();
        let is_given = |key: &&str| options.get(*key).is_some_and(|value| !value.is_empty());
        let is_limited = LIMITS.iter().any(is_given) && !is_given(&"from");
        let driver = options.remove(DRIVER).or_else(|| is_limited.then(|| LIMITED.to_owned()));
        let new = NewVolume { name: name.clone(), driver, options, labels: Default::default() };
        let order = order(name, self.patience.long);
        self.change(order, move |volumes| volumes.create(new), drop).await.map(drop)
    }

    async fn remove(&self, request: Request) -> Answered<()> {
        let name = volume_name(&request)?;
        let order = order(name.clone(), self.patience.short);
        self.change(order, move |volumes| volumes.remove(&name), drop).await
    }

    async fn mount(&self, request: Request) -> Answered<Mounted> {
        let (name, id) = named(request)?;
        let key = (name.clone(), id.clone());
        let order = order(name.clone(), self.patience.long);
        let late = {
            let (docker, key) = (self.clone(), key.clone());
            move |done: Result<_, Refusal>| {
                if done.is_ok() {
                    docker.undo_later(key);
                }
            }
        };
        // The id is wanted again: what is left of an earlier call for it is not undone.
        self.claim(&key);
        let work = move |volumes: &dyn Volumes| volumes.publish(&name, &id);
        let path = self.change(order, work, late).await?;
        self.claim(&key);
        Ok(Mounted { mountpoint: text(&path), err: String::new() })
    }

    async fn unmount(&self, request: Request) -> Answered<()> {
        let (name, id) = named(request)?;
        self.claim(&(name.clone(), id.clone()));
        let order = Order { must_run: true, ..order(name.clone(), self.patience.short) };
        self.change(order, move |volumes| volumes.unpublish(&name, &id), drop).await
    }

    /// Somebody knows of a mount. Whether nobody did until now.
    fn claim(&self, key: &(VolumeName, String)) -> bool {
        self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// Undoes a mount that nobody waited for, unless its id comes again.
    fn undo_later(self, key: (VolumeName, String)) {
        self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(self.patience.unclaimed).await;
            if !self.claim(&key) {
                return;
            }
            tracing::info!("volume {:?}: undoing a mount whose client has gone", key.0.as_str());
            let (name, id) = key;
            let order = Order { must_run: true, ..order(name.clone(), self.patience.short) };
            let work = move |volumes: &dyn Volumes| volumes.unpublish(&name, &id);
            if let Err(Fault::Said(_, reason) | Fault::Unknown(reason)) =
                self.change(order, work, drop).await
            {
                tracing::warn!("undoing a mount: {reason}");
            }
        });
    }

    async fn described(&self, request: Request) -> Answered<Described> {
        if request.name.is_empty() {
            return Err(Fault::Unknown(NO_NAME.to_owned()));
        }
        // A name that no volume can have is that of no volume.
        let name: VolumeName = request.name.parse().map_err(said)?;
        let lane = (Kind::Read, Some(name.clone()));
        let order = Order { lane, limit: self.patience.record, must_run: false };
        let volumes = Arc::clone(&self.volumes);
        let found = {
            let name = name.clone();
            self.calls.run(order, move || volumes.inspect(&name), drop).await
        };
        let unknown = |reason: &dyn std::fmt::Display| {
            Fault::Unknown(format!("volume {:?}: {reason}", name.as_str()))
        };
        let volume = match found {
            Ok(Ok(volume)) => volume,
            Ok(Err(refusal)) if refusal.is_missing() => return Err(refusal.into()),
            Ok(Err(refusal)) => return Err(unknown(&refusal)),
            Err(error) => return Err(unknown(&error)),
        };
        let status = Status {
            driver: volume.driver,
            size_bytes: volume.size_bytes,
            inodes: volume.inodes,
            used_bytes: self.metrics.used_bytes(&name),
        };
        let mountpoint = text(&volume.mountpoint);
        Ok(Described { name, mountpoint, created_at: volume.created_at, status })
    }

    async fn list(&self) -> Answered<Vec<Listed>> {
        let lane = (Kind::Read, None);
        let order = Order { lane, limit: self.patience.record, must_run: false };
        let listed =
            |volume: Volume| Listed { name: volume.name, mountpoint: text(&volume.mountpoint) };
        let all = self.change(order, |volumes| volumes.list(), drop).await?;
        Ok(all.into_iter().map(listed).collect())
    }
}

fn order(name: VolumeName, limit: Duration) -> Order {
    Order { lane: (Kind::Change, Some(name)), limit, must_run: false }
}

fn volume_name(request: &Request) -> Answered<VolumeName> {
    if request.name.is_empty() {
        return Err(said(NO_NAME));
    }
    request.name.parse().map_err(said)
}

/// The volume and the id of a mount.
fn named(request: Request) -> Answered<(VolumeName, String)> {
    let name = volume_name(&request)?;
    match request.id.len() {
        0 => Err(said("the request has no ID")),
        1..=ID_MAX => Ok((name, request.id)),
        len => Err(said(format!("the ID has {len} bytes: {ID_MAX} are the most"))),
    }
}

fn json(value: &impl Serialize) -> Answered<Vec<u8>> {
    serde_json::to_vec(value).map_err(said)
}

fn refused(code: StatusCode, err: String) -> Answer {
    // A text and its escapes are always JSON.
    let body = serde_json::to_vec(&Outcome { err }).unwrap_or_default();
    Answer { code, body, outcome: Counted::Error }
}

/// The answer of a `Get` that cannot know whether the volume exists.
fn silent(endpoint: Endpoint, reason: &str) -> Answer {
    tracing::error!("no reply to {}: {reason}", endpoint.name());
    let code = StatusCode::SERVICE_UNAVAILABLE;
    Answer { code, body: Vec::new(), outcome: Counted::Silence }
}

async fn handle(State(docker): State<Docker>, request: HttpRequest) -> Response {
    let start = Instant::now();
    let endpoint = request.uri().path().parse::<Endpoint>();
    let is_post = request.method() == Method::POST;
    let path = request.uri().path().to_owned();
    let answer = match (endpoint, http::body(request.into_body()).await) {
        (Err(()), _) => refused(StatusCode::NOT_FOUND, format!("unknown call {path}")),
        (Ok(_), _) if !is_post => refused(StatusCode::METHOD_NOT_ALLOWED, "use POST".to_owned()),
        (Ok(Endpoint::Get), Err((_, reason))) => silent(Endpoint::Get, &reason),
        (Ok(_), Err((code, reason))) => refused(code, reason),
        (Ok(endpoint), Ok(body)) => docker.answer(endpoint, &body).await,
    };
    let call = endpoint.map_or("unknown", Endpoint::name);
    docker.metrics.answered("docker", call, answer.outcome, start.elapsed());
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if answer.outcome == Counted::Silence {
        response.extensions_mut().insert(Silence);
    }
    response
}
