//! Connections: TLS with client certificates, and their limits.
//!
//! A connection counts among those that are served once it has shown a certificate of this
//! authority; one without such a certificate ends in the handshake. Handshakes have a limit of
//! their own. When it is reached, the oldest one ends to make room: a client that is at work needs
//! a few milliseconds, and those that send nothing keep none out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guarded::{Count, Guarded, Limits, Serving};
use super::verbs;
use super::{Api, Caller, Client, Front};
use crate::serve::http::{last_if, to_end};
use crate::serve::patient::{Patient, Progress};

/// How long a handshake may take, and how long at least when others wait for its place.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKE_LEAST: Duration = Duration::from_millis(250);
/// Handshakes at the same time.
const HANDSHAKES: usize = 64;
/// How long the head of a request may take from its first byte.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle, and how long a client may not read.
const LIMITS: Limits = Limits { idle: Duration::from_secs(300), write: Duration::from_secs(30) };
/// Of the buffer of a connection, which holds the head of a request.
const BUFFER: usize = 64 << 10;
/// How long events are kept, and how often old ones are looked for.
const EVENTS_AGE: Duration = Duration::from_secs(3600);
const EVENTS_LOOK: Duration = Duration::from_secs(300);
/// After an error of accept(2), such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

impl Front {
    /// Accepts connections until the daemon ends, then waits for the requests that are under way.
    ///
    /// # Errors
    /// As giving the listener to the runtime.
    pub async fn serve(self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let Self { api, tls, connections, controller } = self;
        tokio::spawn(Arc::clone(&api.store).follow());
        tokio::spawn(expire_events(Arc::clone(&api)));
        tokio::spawn(controller.follow(api.ending.clone()));
        let controller = tokio::task::spawn_blocking(move || controller.run());
        let free = Arc::new(Semaphore::new(connections));
        let mut ending = api.ending.clone();
        let mut handshakes = Handshakes::default();
        loop {
            let accepted = tokio::select! {
                accepted = handshakes.accept(&listener, &free) => accepted,
                _ = ending.wait_for(|ending| *ending) => break,
            };
            match accepted {
                Ok((stream, _)) => handshakes.begin(welcome(&api, &tls, &free, stream)),
                Err(error) => {
                    tracing::warn!("kube: accepting a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop((listener, handshakes));
        let all = u32::try_from(connections).unwrap_or(u32::MAX);
        drop(free.acquire_many(all).await);
        controller.await.map_err(io::Error::other)
    }
}

/// The connections that have not shown a certificate yet. They end when it is dropped.
#[derive(Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    /// Those that may still run, with their beginnings, the oldest first.
    begun: VecDeque<(Instant, AbortHandle)>,
}

impl Handshakes {
    /// Waits for a connection when there is room for its handshake and for itself.
    async fn accept(
        &mut self,
        listener: &TcpListener,
        free: &Semaphore,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        // Those that wait for a place with a certificate come first. It is never closed.
        drop(free.acquire().await);
        self.room().await;
        listener.accept().await
    }

    fn begin(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(handshake);
        self.begun.push_back((Instant::now(), task));
    }

    /// Waits until there is room for one more, which may end the oldest one.
    async fn room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.begun.retain(|(_, task)| !task.is_finished());
        while self.tasks.len() >= HANDSHAKES {
            let oldest = self.begun.front().map(|(begun, _)| *begun + HANDSHAKE_LEAST);
            let ended = self.tasks.join_next();
            let Some(until) = oldest else { return drop(ended.await) };
            if tokio::time::timeout_at(until, ended).await.is_err() {
                if let Some((_, task)) = self.begun.pop_front() {
                    tracing::debug!("kube: a handshake makes room for another one");
                    task.abort();
                }
                self.tasks.join_next().await;
            }
            self.begun.retain(|(_, task)| !task.is_finished());
        }
    }
}

/// Does a handshake and, when there is a free place, begins to serve the connection.
fn welcome(
    api: &Arc<Api>,
    tls: &TlsAcceptor,
    free: &Arc<Semaphore>,
    stream: TcpStream,
) -> impl Future<Output = ()> + Send + 'static {
    let (api, tls, free) = (Arc::clone(api), tls.clone(), Arc::clone(free));
    let counted = api.metrics.connected("kube");
    async move {
        let Some((stream, client)) = handshake(&tls, stream).await else { return };
        // It is never closed.
        let Ok(permit) = free.acquire_owned().await else { return };
        tokio::spawn(async move {
            connection(api, client, stream).await;
            drop((permit, counted));
        });
    }
}

/// Deletes old events until the process ends.
async fn expire_events(api: Arc<Api>) {
    loop {
        tokio::time::sleep(EVENTS_LOOK).await;
        if let Err(failure) = api.run(|store| store.delete_events(EVENTS_AGE)).await {
            tracing::warn!("deleting old events: {failure}");
        }
    }
}

/// The client of a connection: its certificate, as a number.
fn client(stream: &TlsStream<TcpStream>) -> Option<Client> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let mut hasher = DefaultHasher::new();
    certificate.as_ref().hash(&mut hasher);
    Some(Client(hasher.finish()))
}

async fn handshake(tls: &TlsAcceptor, stream: TcpStream) -> Option<(TlsStream<TcpStream>, Client)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection");
    }
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            // The handshake demands one.
            let client = client(&stream)?;
            return Some((stream, client));
        }
        Ok(Err(error)) => tracing::debug!(%error, "kube: a handshake"),
        Err(_) => tracing::debug!("kube: a handshake is too slow"),
    }
    None
}

async fn connection(api: Arc<Api>, client: Client, stream: TlsStream<TcpStream>) {
    let ending = api.ending.clone();
    let progress = Arc::new(Progress::default());
    let count = Count::default();
    let stream = Guarded::new(stream, LIMITS, Arc::clone(&count));
    let stream = Patient::new(stream, HEAD, Arc::clone(&progress));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        progress.begin();
        let (api, progress) = (Arc::clone(&api), Arc::clone(&progress));
        let caller = Caller { client, serving: Serving::new(&count) };
        async move {
            let answer = verbs::handle(Arc::clone(&api), caller, request.map(Body::new)).await;
            progress.end();
            Ok::<_, Infallible>(last_if(&api.ending, answer))
        }
    });
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = to_end(served, ending).await {
        tracing::debug!(%error, "kube: a connection");
    }
}
