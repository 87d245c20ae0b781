//! One client's connection: TLS if it is to be, the protocol told apart, hyper until it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use http::{HeaderMap, Request};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tracing::debug;

use super::client::{Client, Seat};
use super::framing::Inspector;
use super::incoming::Incoming;
use super::joined::Joined;
use super::watch::Closed;
use super::wire::{Socket, Wire};
use super::worker::{Load, Worker};
use super::{error, headers, http2, service};

/// What a client that knows HTTP/2 is spoken begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// hyper's own, for which it needs no memory of its own a request.
const USUAL_FIELDS: usize = 100;

/// What a client sent before it was told to end takes no longer to be here.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// Why a connection ended with an error.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] http2::Error),
    #[error("closed: {}", .0.label())]
    Closed(Closed),
}

impl Error {
    /// Label of the metric; `None` for a client that merely left.
    fn label(&self) -> Option<&'static str> {
        match self {
            Self::Tls(_) => Some("tls"),
            Self::Http(error) if error.is_parse_too_large() => Some("head_too_large"),
            Self::Http(error) if error.is_parse() => Some("malformed"),
            Self::Closed(Closed::Resets) => Some(Closed::Resets.label()),
            // Counted where it was decided.
            Self::Closed(_) | Self::Io(_) | Self::Http(_) | Self::Http2(_) => None,
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    encrypted: bool,
    _counted: (Seat, Load),
) {
    let client = Rc::new(Client::new(peer, worker.node.trusts(peer.ip())));
    if worker.node.stop.is_cancelled() {
        client.drain();
    }
    let place = Place {
        at: worker.insert(client.clone()),
        worker: worker.clone(),
    };
    let mut talk = pin!(talk(worker.clone(), client.clone(), stream, encrypted));
    let ended = poll_fn(|cx| {
        client.served_by(cx.waker());
        match client.closed() {
            Some(why) => {
                if why == Closed::SlowHead && client.meter.is_in_head() {
                    client.meter.say_last(late(&worker));
                    // Its reader finds what is to be said, and says it.
                    let _ = talk.as_mut().poll(cx);
                }
                Poll::Ready(Err(Error::Closed(why)))
            }
            None => talk.as_mut().poll(cx),
        }
    })
    .await;
    drop(place);
    if let Err(error) = ended {
        if let Some(label) = error.label() {
            worker.stats.closed(label);
        }
        debug!(%peer, %error, "a connection ended with an error");
    }
}

/// The answer to a request whose head was not whole in time (RFC 9110 section 15.5.9).
fn late(worker: &Worker) -> Vec<u8> {
    let id = headers::request_id(&HeaderMap::new(), false, worker.rng.borrow_mut().random());
    let error = error::Error::SlowHead;
    worker.node.metrics.rejected(error.reason());
    error.written(&id, SystemTime::now())
}

/// A connection in its worker's list.
struct Place {
    worker: Rc<Worker>,
    at: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.remove(self.at);
    }
}

async fn talk(
    worker: Rc<Worker>,
    client: Rc<Client>,
    stream: TcpStream,
    encrypted: bool,
) -> Result<(), Error> {
    let (mut socket, negotiated) = match worker.node.tls.as_ref().filter(|_| encrypted) {
        Some(tls) => {
            if heard(&client, stream.peek(&mut [0])).await.is_none() {
                return Ok(());
            }
            let stream = tls.accept(stream).await.map_err(Error::Tls)?;
            let (_, session) = stream.get_ref();
            client.encrypted(session.server_name());
            let http2 = session.alpn_protocol() == Some(b"h2");
            (Socket::Tls(Box::new(stream)), Some(http2))
        }
        None => (Socket::Plain(Joined(stream)), None),
    };
    let mut start = Vec::with_capacity(1024);
    let Some(read) = heard(&client, read(&mut socket, &mut start)).await else {
        return Ok(());
    };
    let read = read?;
    let http2 = match negotiated {
        Some(http2) => http2,
        None => tell_apart(&mut socket, read, &mut start).await?,
    };
    let meter = client.meter.clone();
    match http2 {
        true => {
            client.speaks_http2();
            let wire = Wire::new(socket, Inspector::blind(), meter, start);
            Ok(http2::server::serve(worker, client, wire).await?)
        }
        false => {
            let inspector = Inspector::new(worker.node.limits.max_header_bytes);
            let wire = Wire::new(socket, inspector, meter, start);
            serve_http1(worker, client, wire).await
        }
    }
}

/// What comes of `first`, which waits for a client's first words; `None` if it has said nothing when it is told to
/// end. Words that are on their way then are still heard.
async fn heard<T>(client: &Client, first: impl Future<Output = T>) -> Option<T> {
    let mut first = pin!(first);
    let heard = poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Pending if client.is_draining() => Poll::Ready(None),
        heard => heard.map(Some),
    });
    match heard.await {
        None => tokio::time::timeout(UNDER_WAY, first).await.ok(),
        heard => heard,
    }
}

/// Reads on until it is known whether HTTP/2 is spoken. `read`: bytes that came last.
async fn tell_apart(socket: &mut Socket, mut read: usize, start: &mut Vec<u8>) -> io::Result<bool> {
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

/// Reads what there is; how many bytes.
async fn read(socket: &mut Socket, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| poll_into(socket, cx, into)).await
}

fn poll_into(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    into: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut bytes = [std::mem::MaybeUninit::uninit(); 4096];
    let mut buf = ReadBuf::uninit(&mut bytes);
    ready!(socket.poll_read(cx, &mut buf))?;
    into.extend_from_slice(buf.filled());
    Poll::Ready(Ok(buf.filled().len()))
}

async fn serve_http1(worker: Rc<Worker>, client: Rc<Client>, wire: Wire) -> Result<(), Error> {
    let limits = &worker.node.limits;
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(limits.max_header_bytes)
        .max_header_size(limits.max_header_bytes);
    if limits.max_headers != USUAL_FIELDS {
        builder.max_headers(limits.max_headers);
    }
    let service = service_fn(|request: Request<_>| {
        let request = Box::new(request.map(Incoming::Http1));
        let answer = service::handle(worker.clone(), client.clone(), request);
        answer.map(Ok::<_, Infallible>)
    });
    let connection = builder.serve_connection(TokioIo::new(wire), service);
    let mut connection = pin!(connection.with_upgrades());
    drive(&client, |cx, drain| {
        if drain {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map_err(Error::from)
    })
    .await
}

/// Polls a connection to its end; tells it once when it is to end.
pub(super) async fn drive<E>(
    client: &Client,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
) -> Result<(), E> {
    let mut told = false;
    poll_fn(|cx| {
        let tell = client.is_draining() && !told;
        told |= tell;
        poll(cx, tell)
    })
    .await
}
