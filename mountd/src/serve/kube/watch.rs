//! Watches: streams of changes, one JSON document a line.
//!
//! A watch holds shared changes and one chunk of text, whatever its client reads. It ends at its
//! time-out, with the daemon, or with an error of its own in the stream: the client starts anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::answer::{self, View};
use super::guarded::Serving;
use super::negotiate::Shape;
use super::verbs::{Call, list_options};
use super::{Api, Caller, WatchPermit};
use crate::kube::feed::{Event, Seen};
use crate::kube::kinds::Kind;
use crate::kube::objects::{List, ListOptions, version};
use crate::kube::status::{Answer, Failure};
use crate::kube::table::table;

/// The time-out of a watch whose client names none, and the longest.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Objects that are listed at once at the beginning.
const PAGE: usize = 50;
/// A chunk is sent once it has this many bytes.
const CHUNK: usize = 64 << 10;
/// The annotation of the bookmark after the objects that were there at the beginning.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// A watch.
struct Watch {
    api: Arc<Api>,
    kind: &'static Kind,
    view: View,
    /// The list with which it begins, as far as it is still to come.
    initial: Option<ListOptions>,
    options: ListOptions,
    version: u64,
    pending: VecDeque<Arc<Event>>,
    announced: Receiver<u64>,
    ending: Receiver<bool>,
    deadline: Instant,
    bookmarks: Option<Interval>,
    marks_initial: bool,
    has_columns: bool,
    is_over: bool,
    _permit: WatchPermit,
    _serving: Serving,
}

/// Starts a watch.
///
/// # Errors
/// Invalid options, too many watches.
pub async fn start(api: Arc<Api>, caller: Caller, call: Call) -> Answer<Response<Body>> {
    let mut options = list_options(&call)?;
    let permit = api.watch_permit(caller.client)?;
    let parameters = &call.parameters;
    let seconds = parameters.value("timeoutSeconds");
    let timeout = match seconds.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds).min(TIMEOUT_MAX),
        Err(_) if !seconds.is_empty() => {
            return Err(Failure::bad_request("timeoutSeconds is not a number"));
        }
        _ => TIMEOUT,
    };
    let is_flag = |name| !parameters.value(name).is_empty() && parameters.is_true(name);
    let sends_initial = is_flag("sendInitialEvents");
    let version = if options.version.is_empty() { 0 } else { version(&options.version)? };
    options.limit = PAGE;
    let begins_with_list = version == 0 || sends_initial;
    let list = ListOptions {
        version: String::new(),
        version_match: String::new(),
        token: String::new(),
        ..options.clone()
    };
    let mut bookmarks = tokio::time::interval_at(Instant::now() + BOOKMARK, BOOKMARK);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        kind: call.place.kind,
        view: call.view,
        initial: begins_with_list.then_some(list),
        options,
        version,
        pending: VecDeque::new(),
        announced: api.store.subscribe(),
        ending: api.ending.clone(),
        deadline: Instant::now() + timeout,
        bookmarks: is_flag("allowWatchBookmarks").then_some(bookmarks),
        marks_initial: sends_initial,
        has_columns: true,
        is_over: false,
        api,
        _permit: permit,
        _serving: caller.serving,
    };
    let chunks = futures_util::stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), watch))
    });
    let media_type = Shape::Objects.media_type();
    Ok(answer::raw(200, &media_type, Body::from_stream(chunks)))
}

impl Watch {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(options) = self.initial.take() {
                let chunk = self.begin(options).await;
                if !chunk.is_empty() {
                    return Some(chunk);
                }
                continue;
            }
            let chunk = self.encode_pending();
            if !chunk.is_empty() {
                return Some(chunk);
            }
            // Announced first, so that what comes after the look wakes the wait.
            self.announced.borrow_and_update();
            match self.look().await {
                Ok(true) => {}
                Ok(false) => match self.wait().await {
                    Some(chunk) if chunk.is_empty() => {}
                    chunk => return chunk,
                },
                Err(failure) => return Some(self.fail(&failure)),
            }
        }
    }

    /// Takes the changes after the last one; whether there were any.
    async fn look(&mut self) -> Answer<bool> {
        let events = match self.api.store.since(self.version) {
            Some(events) => events,
            None => {
                let version = self.version;
                self.api.run(move |store| store.log_since(version)).await?
            }
        };
        let Some(last) = events.last() else { return Ok(false) };
        self.version = last.version;
        self.pending.extend(events);
        Ok(true)
    }

    /// Waits for changes; a bookmark, an empty text to look again, or `None` at the end.
    async fn wait(&mut self) -> Option<String> {
        let bookmark = async {
            match &mut self.bookmarks {
                Some(interval) => {
                    interval.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        let ending = async {
            // An error is the end of the daemon too.
            self.ending.wait_for(|ending| *ending).await.is_ok()
        };
        let is_marked = tokio::select! {
            changed = self.announced.changed() => return changed.ok().map(|()| String::new()),
            () = bookmark => true,
            () = tokio::time::sleep_until(self.deadline) => false,
            _ = ending => false,
        };
        is_marked.then(|| self.bookmark(false))
    }

    /// A page of the objects that are there at the beginning.
    async fn begin(&mut self, options: ListOptions) -> String {
        let kind = self.kind;
        let mut next = options.clone();
        let listed = self.api.run(move |store| store.list(kind, &options)).await;
        let List { items, version, token, .. } = match listed {
            Ok(list) => list,
            Err(failure) => return self.fail(&failure),
        };
        let mut chunk = String::new();
        for item in &items {
            self.line(&mut chunk, Seen::Added, item);
        }
        if token.is_empty() {
            self.version = version;
            if self.marks_initial {
                chunk.push_str(&self.bookmark(true));
            }
        } else {
            next.token = token;
            self.initial = Some(next);
        }
        chunk
    }

    fn encode_pending(&mut self) -> String {
        let mut chunk = String::new();
        while chunk.len() < CHUNK {
            let Some(event) = self.pending.pop_front() else { break };
            if let Some((seen, object)) = event.seen_by(self.kind, &self.options.filter) {
                self.line(&mut chunk, seen, object);
            }
        }
        chunk
    }

    fn line(&mut self, chunk: &mut String, seen: Seen, object: &Value) {
        let object = match self.view.shape {
            Shape::Objects | Shape::Discovery(_) => object.clone(),
            Shape::Metadata => answer::metadata(object),
            Shape::Table => {
                let meta = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
                let has_columns = std::mem::take(&mut self.has_columns);
                let objects = std::slice::from_ref(object);
                table(self.kind, objects, &meta, self.view.include, has_columns)
            }
        };
        push(chunk, seen.name(), &object);
    }

    fn bookmark(&self, is_initial_end: bool) -> String {
        let mut meta = json!({"resourceVersion": self.version.to_string()});
        if let (true, Some(meta)) = (is_initial_end, meta.as_object_mut()) {
            meta.insert("annotations".to_owned(), json!({INITIAL_END: "true"}));
        }
        let object = match self.view.shape {
            Shape::Table => table(self.kind, &[], &meta, self.view.include, false),
            Shape::Metadata => answer::metadata(&json!({"metadata": meta})),
            Shape::Objects | Shape::Discovery(_) => json!({
                "kind": self.kind.kind,
                "apiVersion": self.kind.api_version(),
                "metadata": meta,
            }),
        };
        let mut line = String::new();
        push(&mut line, "BOOKMARK", &object);
        line
    }

    fn fail(&mut self, failure: &Failure) -> String {
        self.is_over = true;
        let mut line = String::new();
        push(&mut line, "ERROR", &failure.status());
        line
    }
}

fn push(chunk: &mut String, form: &str, object: &Value) {
    chunk.push_str(&json!({"type": form, "object": object}).to_string());
    chunk.push('\n');
}
