//! The Container Storage Interface over a unix socket.
//!
//! | file | its part |
//! | --- | --- |
//! | `stream` | connections, and how long a client may take |
//! | `authority` | requests of old clients, which h2 refuses |
//! | `hpack` | header blocks |
//! | `count` | counters, and limits of requests |

mod authority;
mod count;
mod hpack;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use futures_util::Stream;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tonic::service::Routes;
use tonic::transport::Server;

use self::count::Counts;
use self::stream::ClientStream;
use super::metrics::Metrics;
use super::sockets::Listener;
use crate::csi::{self, Driver};

/// The name of this front end in metrics and the log.
const NAME: &str = "csi";
/// Calls of one connection at the same time.
const STREAMS: u32 = 256;
/// After this time without a sign of life a connection is asked for one, and closed without an
/// answer.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a frame, or a header block, may take from its first byte; the first begins with the
/// connection.
const FRAME_LIMIT: Duration = Duration::from_secs(10);
/// After an error of accept(2), such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client has, at the end, to close a connection without calls.
const LAST: Duration = Duration::from_secs(1);

/// The front end.
pub struct Front {
    /// The driver.
    pub driver: Arc<Driver>,
    /// Connections at the same time; further ones wait to be accepted.
    pub connections: usize,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Front {
    /// Serves the driver until the daemon ends. Calls that run are waited for, also those whose
    /// clients are gone.
    ///
    /// # Errors
    /// As giving the listener to the runtime.
    pub async fn serve(self, listener: Listener, ending: watch::Receiver<bool>) -> io::Result<()> {
        let Listener::Unix(listener) = listener else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "csi needs a unix socket"));
        };
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let Self { driver, connections, metrics } = self;
        let counts = Counts::new(Arc::clone(&metrics));
        let counted = middleware::from_fn_with_state(counts.clone(), count::counted);
        let routes = csi::routes(&driver).into_axum_router().layer(counted);
        let server = Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_routes(Routes::from(routes));
        let clients = clients(listener, connections, metrics);
        let served = server.serve_with_incoming_shutdown(clients, ended(ending.clone()));
        tokio::select! {
            served = served => served.map_err(io::Error::other)?,
            () = silent(&counts, ending) => tracing::debug!("csi: a client stays connected"),
        }
        driver.idle().await;
        Ok(())
    }
}

async fn ended(mut ending: watch::Receiver<bool>) {
    // The sender is gone only with the daemon.
    drop(ending.wait_for(|is_ending| *is_ending).await);
}

/// Waits until the daemon ends and all calls have their answers, and then for a moment. A client
/// that does not answer to the end of its connection is not waited for any longer.
async fn silent(counts: &Counts, ending: watch::Receiver<bool>) {
    ended(ending).await;
    tokio::time::sleep(LAST).await;
    counts.idle().await;
    tokio::time::sleep(LAST).await;
}

/// The connections of clients.
fn clients(
    listener: UnixListener,
    connections: usize,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<ClientStream>> {
    let free = Arc::new(Semaphore::new(connections));
    futures_util::stream::unfold(
        (listener, free, metrics),
        async move |(listener, free, metrics)| {
            loop {
                // It is never closed.
                let place = Arc::clone(&free).acquire_owned().await.ok();
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let held = (place, Some(metrics.connected(NAME)));
                        let stream = ClientStream::new(stream, FRAME_LIMIT, held);
                        return Some((Ok(stream), (listener, free, metrics)));
                    }
                    Err(error) => {
                        tracing::warn!("{NAME}: accepting a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        },
    )
}
