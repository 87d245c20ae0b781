//! HTTP/2 connections to instances: each shared by all requests of a worker.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::super::body::RequestBody;
use super::super::gather::Gather;
use super::super::joined::Joined;
use super::super::worker::Local;

/// Bytes of a response's head.
const MAX_HEAD: u32 = 64 * 1024;
/// What may be in flight on one stream and on one connection: what bounds memory.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// A connection that carries streams and is silent is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

/// Makes a connection of a new `stream`. `open`: counts it while it is open.
pub(super) async fn connect(
    stream: Joined<TcpStream>,
    address: SocketAddr,
    open: TaskTrackerToken,
) -> io::Result<http2::SendRequest<RequestBody>> {
    let gather = Gather::new(stream);
    let (sender, connection) = http2::Builder::new(Gathering::new(gather.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING)
        .handshake(TokioIo::new(gather))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            debug!(%address, %error, "a connection to an instance ended");
        }
        drop(open);
    });
    Ok(sender)
}

/// Spawns what hyper wants run. The first of that is what reads and writes the socket: it sends what was gathered
/// after each of its turns.
#[derive(Clone)]
struct Gathering(Rc<Cell<Option<Gather<Joined<TcpStream>>>>>);

impl Gathering {
    fn new(gather: Gather<Joined<TcpStream>>) -> Self {
        Self(Rc::new(Cell::new(Some(gather))))
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Gathering {
    fn execute(&self, future: F) {
        let Some(gather) = self.0.take() else {
            return Local.execute(future);
        };
        let mut future = Box::pin(future);
        tokio::task::spawn_local(poll_fn(move |cx| {
            let turn = future.as_mut().poll(cx);
            // What could not be sent is lost, and with it the connection.
            gather.after(cx, turn, |_| ())
        }));
    }
}
