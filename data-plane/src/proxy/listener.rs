//! Accepts connections, bounds what they may cost, and drains them on shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::service::Proxy;

/// A head must be whole within this time, also the first: a slow one is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most fields of a head.
const MAX_FIELDS: usize = 100;
/// The most bytes of a head, and of what is read ahead.
const MAX_HEAD: usize = 64 * 1024;
/// After an accept that failed, mostly for want of file descriptors, some connections get to end.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How often connections that idled for too long are closed.
const CLOSE_IDLE_EVERY: Duration = Duration::from_secs(5);

/// Serves `listener` until `stop` is cancelled; the open connections are then told to end after
/// their request and are in `connections`.
pub async fn serve(
    listener: TcpListener,
    proxy: Proxy,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let mut close_idle = tokio::time::interval(CLOSE_IDLE_EVERY);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = close_idle.tick() => {
                proxy.connections().close_idle();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, proxy.clone(), stop.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    connections.close();
}

async fn connection(stream: TcpStream, peer: SocketAddr, proxy: Proxy, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "a connection ended before it began");
        return;
    }
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.handle(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection ended with an error");
    }
}
