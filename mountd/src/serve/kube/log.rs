//! The output of a container: `GET .../pods/NAME/log`.
//!
//! It is read from the files of the pod while it is sent, a chunk at a time. A client that follows
//! counts as a watch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::Response;
use serde_json::Value;
use tokio::sync::watch::Receiver;

use super::guarded::Serving;
use super::route::Parameters;
use super::verbs::Call;
use super::{Api, Caller, WatchPermit, answer};
use crate::container::logs::{Reader, Wanted};
use crate::kube::meta::text;
use crate::kube::pods::Home;
use crate::kube::pods::source::pod as pod_of;
use crate::kube::status::{Answer, Failure};

/// Between two looks for more output.
const LOOK: Duration = Duration::from_millis(200);

/// A log that is sent.
struct Sent {
    api: Arc<Api>,
    reader: Option<Reader>,
    place: Place,
    follows: bool,
    ending: Receiver<bool>,
    _permit: Option<WatchPermit>,
    _serving: Serving,
}

/// The container whose log it is.
#[derive(Clone)]
struct Place {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
}

fn number(parameters: &Parameters, name: &str) -> Answer<Option<u64>> {
    let value = parameters.value(name);
    if value.is_empty() {
        return Ok(None);
    }
    let invalid = |_| Failure::bad_request(format!("{name}: use a whole number from 0 up"));
    value.parse().map(Some).map_err(invalid)
}

fn wanted(parameters: &Parameters) -> Answer<Wanted> {
    let is_set = |name| !parameters.value(name).is_empty() && parameters.is_true(name);
    let seconds = number(parameters, "sinceSeconds")?.map(Duration::from_secs);
    let time = match parameters.value("sinceTime") {
        "" => None,
        text => {
            let invalid = |_| Failure::bad_request("sinceTime is not a time of RFC 3339");
            Some(humantime::parse_rfc3339_weak(text).map_err(invalid)?)
        }
    };
    let since = seconds.and_then(|seconds| SystemTime::now().checked_sub(seconds)).or(time);
    Ok(Wanted {
        is_previous: is_set("previous"),
        has_times: is_set("timestamps"),
        tail: number(parameters, "tailLines")?,
        since,
        bytes: number(parameters, "limitBytes")?,
    })
}

/// The container that a request names, or the only one.
fn container(pod: &Value, name: &str) -> Answer<String> {
    let names = |list: &str| -> Vec<String> {
        let list = pod.pointer(list).and_then(Value::as_array);
        list.into_iter().flatten().map(|one| text(one, "/name").to_owned()).collect()
    };
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let of = text(pod, "/metadata/name");
    if name.is_empty() {
        if let ([only], []) = (&main[..], &init[..]) {
            return Ok(only.clone());
        }
        let choice = format!(
            "a container name must be specified for pod {of}, choose one of: [{}]",
            main.join(" ")
        );
        return Err(Failure::bad_request(match init.is_empty() {
            true => choice,
            false => format!("{choice} or one of the init containers: [{}]", init.join(" ")),
        }));
    }
    if main.iter().chain(&init).any(|one| one == name) {
        return Ok(name.to_owned());
    }
    Err(Failure::bad_request(format!("container {name} is not valid for pod {of}")))
}

/// Whether a container runs, by the status of its pod.
fn state<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    ["/status/containerStatuses", "/status/initContainerStatuses"]
        .iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten()
        .find(|one| text(one, "/name") == container)
}

/// Sends the output of a container.
///
/// # Errors
/// Not found; a container that the pod does not have, or that has no output yet.
pub async fn serve(api: Arc<Api>, caller: Caller, call: Call) -> Answer<Response<Body>> {
    let parameters = &call.parameters;
    let follows = !parameters.value("follow").is_empty() && parameters.is_true("follow");
    let wanted = wanted(parameters)?;
    let permit = match follows {
        true => Some(api.watch_permit(caller.client)?),
        false => None,
    };
    let namespace = call.place.namespace.clone().unwrap_or_default();
    let name = call.place.name.clone().unwrap_or_default();
    let asked = parameters.value("container").to_owned();
    let (root, runtime) = (api.root.clone(), api.runtime_dir.clone());
    let opened = api.run(move |store| {
        let pod = pod_of(store, (&namespace, &name))?;
        let container = container(&pod, &asked)?;
        let uid = text(&pod, "/metadata/uid").to_owned();
        let reader = open((root, runtime, &uid), &container, &wanted)?;
        if reader.is_none() {
            return Err(none(&pod, &container, wanted.is_previous));
        }
        Ok((reader, Place { namespace, pod: name, uid, container }))
    });
    let (reader, place) = opened.await?;
    let ending = api.ending.clone();
    let serving = caller.serving;
    let sent = Sent { api, reader, place, follows, ending, _permit: permit, _serving: serving };
    let chunks = futures_util::stream::unfold(sent, |mut sent| async move {
        let chunk = sent.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), sent))
    });
    Ok(answer::raw(200, "text/plain", Body::from_stream(chunks)))
}

fn open(
    (root, runtime, uid): (PathBuf, Option<PathBuf>, &str),
    container: &str,
    wanted: &Wanted,
) -> Answer<Option<Reader>> {
    let failed = |error: std::io::Error| Failure::internal(&format!("the log: {error}"));
    let home = Home::new(&root, runtime.as_deref(), uid).map_err(failed)?;
    Reader::open(&home.logs(container), wanted.clone()).map_err(failed)
}

/// Why there is no output.
fn none(pod: &Value, container: &str, is_previous: bool) -> Failure {
    let of = text(pod, "/metadata/name");
    if is_previous {
        let what = "previous terminated container";
        return Failure::bad_request(format!("{what} {container:?} in pod {of:?} not found"));
    }
    let reason = state(pod, container).map_or("", |one| text(one, "/state/waiting/reason"));
    let reason = if reason.is_empty() { "ContainerCreating" } else { reason };
    Failure::bad_request(format!(
        "container {container:?} in pod {of:?} is waiting to start: {reason}"
    ))
}

impl Sent {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut is_last = !self.follows;
        loop {
            let mut reader = self.reader.take()?;
            let follows = self.follows;
            let read = self.api.run(move |_| {
                let chunk = reader.chunk();
                let is_past = follows && reader.is_past();
                Ok((chunk, is_past, reader))
            });
            let (chunk, is_past, reader) = read.await.ok()?;
            self.reader = Some(reader);
            match chunk {
                Ok(Some(chunk)) if !chunk.is_empty() => return Some(chunk),
                Ok(Some(_)) if !is_last => {}
                Ok(_) => return None,
                Err(error) => {
                    tracing::warn!(%error, "reading the log of pod {}", self.place.pod);
                    return None;
                }
            }
            // What it wrote until it ended comes with a last look. A short end between two runs is
            // seldom seen in the status, but the log of the next run is there.
            is_last = is_past || !self.is_running().await;
            if !is_last {
                let ended = tokio::time::timeout(LOOK, self.ending.wait_for(|ending| *ending));
                is_last = ended.await.is_ok();
            }
        }
    }

    async fn is_running(&self) -> bool {
        let place = self.place.clone();
        let found = self.api.run(move |store| {
            let pod = pod_of(store, (&place.namespace, &place.pod))?;
            let is_same = text(&pod, "/metadata/uid") == place.uid;
            let status = state(&pod, &place.container);
            let is_over = status.is_some_and(|one| one.pointer("/state/terminated").is_some());
            let is_waiting =
                status.is_some_and(|one| text(one, "/state/waiting/reason") == "CrashLoopBackOff");
            Ok(is_same && !is_over && !is_waiting)
        });
        found.await.unwrap_or(false)
    }
}
