//! What every call of the Container Storage Interface has in common: it is counted with its code
//! and its time, and its request has limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Sleep;
use tonic::{Code, Status};

use crate::serve::metrics::Metrics;

/// The longest request.
const REQUEST_MAX: usize = 1 << 20;
/// How long a request may take from its head to its end.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The calls of all services.
const CALLS: [&str; 36] = [
    "GetPluginInfo",
    "GetPluginCapabilities",
    "Probe",
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "ValidateVolumeCapabilities",
    "ListVolumes",
    "ControllerListVolumeHealth",
    "ControllerGetVolumeHealth",
    "GetCapacity",
    "ControllerGetCapabilities",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ListSnapshots",
    "GetSnapshot",
    "ControllerExpandVolume",
    "ControllerGetVolume",
    "ControllerModifyVolume",
    "GroupControllerGetCapabilities",
    "CreateVolumeGroupSnapshot",
    "DeleteVolumeGroupSnapshot",
    "GetVolumeGroupSnapshot",
    "NodeStageVolume",
    "NodeUnstageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeGetVolumeStats",
    "NodeGetVolumeHealth",
    "NodeGetStorageHealth",
    "NodeExpandVolume",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "GetMetadataAllocated",
    "GetMetadataDelta",
];

/// Counters of calls.
#[derive(Clone)]
pub struct Counts {
    metrics: Arc<Metrics>,
    running: watch::Sender<usize>,
}

/// A call that runs until it is dropped.
struct Running {
    counts: Counts,
    call: &'static str,
    start: Instant,
    /// The code of its answer. A call without one was given up by its client.
    code: Option<Code>,
}

impl Counts {
    /// Counters that are shown with those of the daemon.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, running: watch::Sender::new(0) }
    }

    /// Waits until every call has its answer.
    pub async fn idle(&self) {
        // The sender is here.
        drop(self.running.subscribe().wait_for(|running| *running == 0).await);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        let time = self.start.elapsed();
        self.counts.metrics.called("csi", self.call, result(code), time);
        self.counts.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// The label of a code.
const fn result(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The name of a call of a path, `unknown` for others: clients cannot add labels.
fn name(path: &str) -> &'static str {
    let call = path.strip_prefix("/csi.v1.").and_then(|path| path.split_once('/'));
    let known = call.and_then(|(_, call)| CALLS.into_iter().find(|known| *known == call));
    known.unwrap_or("unknown")
}

/// Serves one call.
pub async fn counted(State(counts): State<Counts>, request: Request, next: Next) -> Response {
    let call = name(request.uri().path());
    counts.running.send_modify(|running| *running += 1);
    let mut running = Running { counts, call, start: Instant::now(), code: None };
    let response = next.run(request.map(|body| Body::new(Limited::new(body)))).await;
    // An answer without a message has its code in the head.
    running.code = code(response.headers());
    response.map(|body| Body::new(Answer { body, running }))
}

fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

/// The body of an answer, whose end has the code.
struct Answer {
    body: Body,
    running: Running,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.running.code = code(trailers).or(this.running.code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, which ends in time and is not too long.
struct Limited {
    body: Body,
    len: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Limited {
    fn new(body: Body) -> Self {
        Self { body, len: 0, deadline: Box::pin(tokio::time::sleep(REQUEST_LIMIT)) }
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if frame.is_pending() && this.deadline.as_mut().poll(cx).is_ready() {
            let text = format!("the request did not arrive within {} s", REQUEST_LIMIT.as_secs());
            return Poll::Ready(Some(Err(axum::Error::new(Status::deadline_exceeded(text)))));
        }
        let frame = ready!(frame);
        if let Some(Err(error)) = &frame {
            let text = format!("the request broke off: {error}");
            return Poll::Ready(Some(Err(axum::Error::new(Status::unavailable(text)))));
        }
        if let Some(Ok(frame)) = &frame {
            this.len += frame.data_ref().map_or(0, Bytes::len);
        }
        if this.len > REQUEST_MAX {
            let text = format!("the request exceeds {REQUEST_MAX} bytes");
            return Poll::Ready(Some(Err(axum::Error::new(Status::resource_exhausted(text)))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_of_the_protocol_have_a_name() {
        let protocol = include_str!("../../../proto/csi.proto");
        let calls = protocol.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let calls: Vec<&str> = calls.filter_map(|line| line.split(['(', ' ']).next()).collect();
        assert_eq!(calls.len(), CALLS.len());
        for call in calls {
            assert_eq!(name(&format!("/csi.v1.Any/{call}")), call);
        }
        for other in ["/csi.v1.Any/Other", "/x", "/csi.v2.Any/Probe", "/csi.v1.Any/"] {
            assert_eq!(name(other), "unknown");
        }
    }
}
