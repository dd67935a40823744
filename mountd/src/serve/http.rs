//! HTTP over the sockets of front ends: connections with limits, and bodies with limits.
//!
//! hyper serves each connection, since axum's own server has neither limits of time nor a way to
//! close a connection without a reply. An empty `Host:` is accepted, as Docker sends it.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::metrics::{Connection, Metrics};
use super::patient::{Patient, Progress};
use super::sockets::Listener;

/// The longest body.
const BODY_MAX: usize = 1 << 20;
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// How long the head of a request may take from its first byte.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Of the buffer of a connection, which holds the head of a request.
const BUFFER: usize = 64 << 10;
/// After an error of accept(2), such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection lives on when the daemon ends. Its next answer tells that it is the last
/// one. A connection that is closed while it is idle may just carry a new request, which is lost.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// Marks a response that is not sent: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub struct Silence;

/// Reads a body.
///
/// # Errors
/// The status code and a sentence for the client: the body is too long, too slow or broken off.
pub async fn body(body: Body) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(BODY_LIMIT, axum::body::to_bytes(body, BODY_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if std::error::Error::source(&error).is_some_and(is_length_error) => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds {BODY_MAX} bytes")))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("the body is broken: {error}"))),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_LIMIT.as_secs()),
        )),
    }
}

fn is_length_error(error: &(dyn std::error::Error + 'static)) -> bool {
    error.to_string().contains("length limit exceeded")
}

/// A front end that is served.
#[derive(Debug)]
pub struct Front {
    /// Its name in metrics.
    pub name: &'static str,
    /// Its routes.
    pub router: Router,
    /// Connections at the same time; further ones wait to be accepted.
    pub connections: usize,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A listener of the runtime.
enum Accepting {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
        })
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Accepting {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Front {
    /// Accepts connections until `ending` is set, then waits for the requests that are under way.
    ///
    /// # Errors
    /// As giving the listener to the runtime.
    pub async fn serve(
        self,
        listener: Listener,
        mut ending: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let listener = Accepting::new(listener)?;
        let free = Arc::new(Semaphore::new(self.connections));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &free) => accepted,
                _ = ending.wait_for(|ending| *ending) => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = self.connection(stream, ending.clone());
                    let served = to_end(connection, ending.clone());
                    let counted = self.metrics.connected(self.name);
                    tokio::spawn(async move {
                        if let Err(error) = served.await {
                            tracing::debug!(%error, "a connection");
                        }
                        drop::<(_, Connection)>((permit, counted));
                    });
                }
                Err(error) => {
                    tracing::warn!("{}: accepting a connection: {error}", self.name);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        drop(free.acquire_many(all).await);
        Ok(())
    }

    fn connection(
        &self,
        stream: Box<dyn Stream>,
        ending: watch::Receiver<bool>,
    ) -> impl GracefulConnection<Error = hyper::Error> + use<> {
        let router = TowerToHyperService::new(self.router.clone());
        let progress = Arc::new(Progress::default());
        let stream = Patient::new(stream, HEAD_LIMIT, Arc::clone(&progress));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            progress.begin();
            let answer = hyper::service::Service::call(&router, request);
            let (progress, ending) = (Arc::clone(&progress), ending.clone());
            async move {
                let answer: Result<Response, Infallible> = answer.await;
                progress.end();
                match answer.map(|answer| last_if(&ending, answer)) {
                    Ok(answer) if answer.extensions().get::<Silence>().is_some() => {
                        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
                    }
                    Ok(answer) => Ok(answer),
                    Err(never) => match never {},
                }
            }
        });
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    }
}

/// Marks the last answer of a connection when the daemon ends.
pub fn last_if(ending: &watch::Receiver<bool>, mut answer: Response) -> Response {
    if *ending.borrow() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Serves a connection until its client closes it, or a moment after the daemon begins to end.
///
/// # Errors
/// As serving the connection.
pub async fn to_end<C: GracefulConnection>(
    connection: C,
    mut ending: watch::Receiver<bool>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let ended = async {
        // An error says that the sender is gone: the daemon has ended.
        drop(ending.wait_for(|ending| *ending).await);
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        done = connection.as_mut() => return done,
        () = ended => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn accept(
    listener: &Accepting,
    free: &Arc<Semaphore>,
) -> io::Result<(Box<dyn Stream>, Option<tokio::sync::OwnedSemaphorePermit>)> {
    // It is never closed.
    let permit = Arc::clone(free).acquire_owned().await.ok();
    Ok((listener.accept().await?, permit))
}
