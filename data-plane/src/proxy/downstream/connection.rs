//! One client's connection: the TLS handshake, protocol detection, and requests until it ends.
//!
//! [`serve`] polls the connection together with its [`ClientConn`]: a call that closes or drains the
//! latter wakes the task, which then ends the connection, or has it end after its requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::drive::drive;
use super::http2;
use super::metered_io::{MeteredIo, Socket};
use crate::proxy::client::{ClientConn, CloseReason};
use crate::proxy::peers::AcceptedConn;
use crate::proxy::request::{error, handler, unparsed};
use crate::proxy::wire::h1_framing::Inspector;
use crate::proxy::wire::h2;
use crate::proxy::wire::incoming::Incoming;
use crate::proxy::wire::vectored_tcp::VectoredTcp;
use crate::proxy::worker::Worker;

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// hyper's default, for which it allocates nothing per request.
const DEFAULT_MAX_HEADERS: usize = 100;

/// Time for bytes that a client sent before the drain began to arrive.
const DRAIN_GRACE: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("closed: {}", .0.label())]
    Closed(CloseReason),
}

impl Error {
    /// The metric label; `None` for a client that merely left.
    fn label(&self) -> Option<&'static str> {
        match self {
            Self::Tls(_) => Some("tls"),
            Self::Http(error) if error.is_parse_too_large() => Some("head_too_large"),
            Self::Http(error) if error.is_parse() => Some("malformed"),
            Self::Closed(CloseReason::Resets) => Some(CloseReason::Resets.label()),
            // The worker counted the other reasons when it closed the connection.
            Self::Closed(_) | Self::Io(_) | Self::Http(_) | Self::Http2(_) => None,
        }
    }
}

pub(crate) async fn serve(worker: Rc<Worker>, conn: AcceptedConn<TcpStream>) {
    let AcceptedConn {
        stream,
        peer,
        encrypted,
        permit: _permit,
        load: _load,
    } = conn;
    let client = Rc::new(ClientConn::new(peer, worker.proxy.is_trusted(peer.ip())));
    if worker.proxy.stop.is_cancelled() {
        client.drain();
    }
    let registration = Registration {
        key: worker.add_client(client.clone()),
        worker: worker.clone(),
    };
    let mut served = pin!(serve_requests(
        worker.clone(),
        client.clone(),
        stream,
        encrypted
    ));
    let ended = poll_fn(|cx| {
        client.set_waker(cx.waker());
        match client.closed() {
            Some(reason) => {
                if reason == CloseReason::SlowHead && client.counters.is_in_head() {
                    let response = unparsed::answer(&worker, &client, &error::Error::SlowHead);
                    client.counters.set_final_response(response);
                    // The socket writes the response at its next read.
                    let _ = served.as_mut().poll(cx);
                }
                Poll::Ready(Err(Error::Closed(reason)))
            }
            None => served.as_mut().poll(cx),
        }
    })
    .await;
    drop(registration);
    if let Err(error) = ended {
        if let Some(label) = error.label() {
            worker.stats.closed(label);
        }
        client
            .span()
            .in_scope(|| debug!(%error, "connection ended with an error"));
    }
}

/// A connection in its worker's list.
struct Registration {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.remove_client(self.key);
    }
}

async fn serve_requests(
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    stream: TcpStream,
    encrypted: bool,
) -> Result<(), Error> {
    let (mut socket, negotiated) = match worker.proxy.tls.as_ref().filter(|_| encrypted) {
        Some(tls) => {
            let mut first = [0];
            let peeked = stream.peek(&mut first);
            if unless_draining(&client, peeked).await.is_none() {
                return Ok(());
            }
            let stream = tls.accept(stream).await.map_err(Error::Tls)?;
            let (_, session) = stream.get_ref();
            client.set_tls(session.server_name());
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            (Socket::Right(Box::new(stream)), Some(is_http2))
        }
        None => (Socket::Left(VectoredTcp(stream)), None),
    };
    let mut start = Vec::with_capacity(1024);
    let first = read(&mut socket, &mut start);
    let Some(read) = unless_draining(&client, first).await else {
        return Ok(());
    };
    let read = read?;
    let is_http2 = match negotiated {
        Some(is_http2) => is_http2,
        None => detect_http2(&mut socket, read, &mut start).await?,
    };
    let counters = client.counters.clone();
    if is_http2 {
        client.set_http2();
        let io = MeteredIo::new(socket, Inspector::disabled(), counters, start);
        return Ok(http2::serve(worker, client, io).await?);
    }
    let inspector = Inspector::new(worker.proxy.limits.max_header_bytes);
    let io = MeteredIo::new(socket, inspector, counters, start);
    serve_http1(worker, client, io).await
}

/// Waits for the client's first bytes. `None` if there are none when the connection drains, not
/// even after [`DRAIN_GRACE`].
async fn unless_draining<T>(client: &ClientConn, first: impl Future<Output = T>) -> Option<T> {
    let mut first = pin!(first);
    let received = poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Pending if client.is_draining() => Poll::Ready(None),
        received => received.map(Some),
    });
    match received.await {
        None => tokio::time::timeout(DRAIN_GRACE, first).await.ok(),
        received => received,
    }
}

/// Reads until the first bytes distinguish HTTP/2 from HTTP/1. `read`: size of the last read.
async fn detect_http2(
    socket: &mut Socket,
    mut read: usize,
    start: &mut Vec<u8>,
) -> io::Result<bool> {
    loop {
        let known = start.len().min(PREFACE.len());
        if start[..known] != PREFACE[..known] {
            return Ok(false);
        }
        if read == 0 || known == PREFACE.len() {
            return Ok(known == PREFACE.len());
        }
        read = self::read(socket, start).await?;
    }
}

/// Reads once; returns the number of bytes, 0 at the end.
async fn read(socket: &mut Socket, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [std::mem::MaybeUninit::uninit(); 4096];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf))?;
        into.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}

async fn serve_http1(
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    io: MeteredIo,
) -> Result<(), Error> {
    let limits = &worker.proxy.limits;
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(limits.max_header_bytes)
        .max_header_size(limits.max_header_bytes);
    if limits.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    let service = service_fn(|request: Request<_>| {
        let request = Box::new(request.map(Incoming::Http1Request));
        let response = handler::handle(worker.clone(), client.clone(), request, None);
        response.map(Ok::<_, Infallible>)
    });
    let connection = builder.serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection.with_upgrades());
    drive(&client, |cx, shut_down| {
        if shut_down {
            connection.as_mut().graceful_shutdown();
        }
        let polled = connection.as_mut().poll(cx).map_err(Error::from);
        let Some(status) = client.counters.take_refused() else {
            return polled;
        };
        let error = unparsed::error(&client, status);
        let response = unparsed::answer(&worker, &client, &error);
        client.counters.add_interim(&response);
        match polled {
            Poll::Pending => connection.as_mut().poll(cx).map_err(Error::from),
            ended => ended,
        }
    })
    .await
}
