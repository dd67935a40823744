//! The Container Storage Interface over a unix socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::sockets::Listener;
use crate::csi::{self, Driver};

/// Calls of one connection at the same time.
const STREAMS: u32 = 256;
/// After this time without a sign of life a connection is asked for one, and closed without an
/// answer.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Serves a driver until the daemon ends. Calls that run are waited for.
///
/// # Errors
/// As accept(2).
pub async fn serve(
    driver: Arc<Driver>,
    listener: Listener,
    mut ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let Listener::Unix(listener) = listener else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "csi needs a unix socket"));
    };
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let ended = async move {
        // The sender is gone only with the daemon.
        drop(ending.wait_for(|is_ending| *is_ending).await);
    };
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(csi::routes(&driver));
    server
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), ended)
        .await
        .map_err(io::Error::other)
}
