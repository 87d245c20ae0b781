//! HTTP/2 connections to instances, shared by the requests of a worker.
//!
//! The task of a request writes its head and the available part of its body into the stream; only
//! the rest of a body gets a task of its own. The task of the connection moves frames. hyper adds a
//! queue, a task and two channels per request: with it gRPC took 1.10 of HAProxy's CPU, without
//! 0.96.
//!
//! No PING checks whether an instance is alive: the engine reports its exit, requests have
//! deadlines, and gRPC servers close the connection of a client that pings while it is idle.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::head_waker::HeadWaker;
use super::http1::InterimBudget;
use super::request_body::UploadBody;
use super::send_error::{Repeatable, SendError, is_idempotent};
use super::stream_placement::StreamLoad;
use crate::proxy::wire::h1_error;
use crate::proxy::wire::h1_head::normalize_length;
use crate::proxy::wire::h2::{CONNECTION_WINDOW, Error, SEND_BUFFER, STREAM_WINDOW};
use crate::proxy::wire::h2_pump::{H2Pump, PumpError};
use crate::proxy::wire::h2_received::H2Body;
use crate::proxy::wire::incoming::{self, Incoming};
use crate::proxy::wire::vectored_tcp::VectoredTcp;
use crate::proxy::wire::write_coalescer::WriteCoalescer;

/// Limit of a response head in bytes.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection. Dropped, it closes with its last stream.
#[derive(Debug)]
pub(super) struct Http2Conn {
    sender: SendRequest<Bytes>,
    counters: Rc<StreamCounters>,
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Http2Stream {
    sender: SendRequest<Bytes>,
    counters: Rc<StreamCounters>,
    /// The connection had a stream before.
    pub(super) reused: bool,
}

#[derive(Debug)]
struct StreamCounters {
    streams: Cell<usize>,
    /// The limit that the peer has set; 0 until its settings have arrived.
    limit: Cell<usize>,
    was_used: Cell<bool>,
    head: Rc<HeadWaker>,
}

impl Http2Conn {
    /// `open`: counts the connection while it is open. `head`: woken when a stream may have become
    /// free.
    pub(super) async fn new(
        stream: VectoredTcp<TcpStream>,
        address: SocketAddr,
        open: TaskTrackerToken,
        head: Rc<HeadWaker>,
    ) -> io::Result<Self> {
        let coalescer = WriteCoalescer::new(stream);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            // Streams beyond a limit that is still on its way would be refused.
            .initial_max_send_streams(0);
        let handshake = builder.handshake(coalescer.clone()).await;
        let (sender, mut connection) = handshake.map_err(io::Error::other)?;
        let counters = Rc::new(StreamCounters {
            streams: Cell::new(0),
            limit: Cell::new(0),
            was_used: Cell::new(false),
            head,
        });
        let shared = counters.clone();
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                let turn = connection.poll_unpin(cx);
                shared.limit.set(connection.max_concurrent_send_streams());
                shared.head.wake();
                coalescer.end_turn(cx, turn.map_err(Error::from), |error| Err(error.into()))
            });
            if let Err(error) = ended.await {
                debug!(%address, %error, "connection to an instance ended with an error");
            }
            drop((connection, open));
            shared.head.wake();
        });
        Ok(Self { sender, counters })
    }

    pub(super) fn load(&self) -> StreamLoad {
        StreamLoad {
            streams: self.counters.streams.get(),
            limit: self.counters.limit.get(),
        }
    }

    /// Whether it had a stream.
    pub(super) fn was_used(&self) -> bool {
        self.counters.was_used.get()
    }

    pub(super) fn open_stream(&self) -> Http2Stream {
        let counters = self.counters.clone();
        counters.streams.set(counters.streams.get() + 1);
        Http2Stream {
            sender: self.sender.clone(),
            reused: counters.was_used.replace(true),
            counters,
        }
    }

    /// The connection takes no more requests: it is broken, has received GOAWAY, or has used up its
    /// stream identifiers.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

impl Http2Stream {
    pub(super) async fn send<B: UploadBody>(
        &mut self,
        request: Box<Request<B>>,
        interim: &dyn Fn(Response<()>),
    ) -> Result<Response<Incoming>, SendError<B>> {
        // In a function of its own, so that head and body are no part of the future.
        let (response, repeated) = self.begin(*request);
        let received = match response {
            Ok(response) => receive(response, interim).await,
            Err(error) => Err(error.into()),
        };
        received.map_err(|error| SendError {
            request: repeated
                .filter(|request| match is_refused(&error) {
                    true => true,
                    false => is_idempotent(request.method()) && is_unanswered(&error),
                })
                .map(|request| (request, Repeatable::Idempotent)),
            error,
        })
    }

    /// Sends the request. Returns a copy if it has no body.
    fn begin<B: UploadBody>(
        &mut self,
        request: Request<B>,
    ) -> (Result<ResponseFuture, h2::Error>, Option<Box<Request<B>>>) {
        let (head, body) = request.into_parts();
        if !body.is_end_stream() {
            return (self.start(head, body), None);
        }
        let copy = Box::new(Request::from_parts(head.clone(), body));
        let sent = self
            .sender
            .send_request(Request::from_parts(head, ()), true);
        (sent.map(|(response, _)| response), Some(copy))
    }

    /// Sends the head and the available part of the body; spawns a task for the rest.
    fn start<B: UploadBody>(&mut self, head: Parts, body: B) -> Result<ResponseFuture, h2::Error> {
        let head = Request::from_parts(head, ());
        let (response, stream) = self.sender.send_request(head, false)?;
        let mut pump = H2Pump::new(body, stream);
        // No waker is needed: the spawned task polls at once.
        let mut cx = Context::from_waker(Waker::noop());
        match pump.poll(&mut cx) {
            Poll::Ready(sent) => end(&mut pump, sent),
            Poll::Pending => {
                tokio::task::spawn_local(send_rest(pump));
            }
        }
        Ok(response)
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let streams = &self.counters.streams;
        streams.set(streams.get().saturating_sub(1));
        self.counters.head.wake();
    }
}

async fn receive(
    mut response: ResponseFuture,
    interim: &dyn Fn(Response<()>),
) -> Result<Response<Incoming>, incoming::Error> {
    let mut interims = InterimBudget::default();
    let response = poll_fn(|cx| {
        while let Poll::Ready(Some(head)) = response.poll_informational(cx) {
            let head = head?;
            let fields = head.headers().iter();
            let bytes: usize = fields
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            // RFC 9113 section 8.6.
            if head.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(h1_error::Error::malformed("101 over HTTP/2").into()));
            }
            interims.take(bytes)?;
            interim(head);
        }
        response.poll_unpin(cx).map_err(incoming::Error::from)
    });
    let (mut head, received) = response.await?.into_parts();
    normalize_length(&mut head.headers)?;
    let body = Incoming::Http2(H2Body::new(received, &head.headers));
    Ok(Response::from_parts(head, body))
}

/// Whether the connection ended without an answer.
fn is_unanswered(error: &incoming::Error) -> bool {
    let incoming::Error::Http2(error) = error else {
        return false;
    };
    // A violation that `h2` found is an answer.
    error.is_io() || error.is_go_away() && !error.is_library()
}

/// Whether the instance has not processed the request (RFC 9113 section 8.7).
fn is_refused(error: &incoming::Error) -> bool {
    let refused = Some(Reason::REFUSED_STREAM);
    matches!(error, incoming::Error::Http2(error) if error.reason() == refused)
}

async fn send_rest<B: UploadBody>(mut pump: H2Pump<B>) {
    let sent = poll_fn(|cx| {
        if pump.body().poll_cancelled(cx).is_ready() {
            pump.reset(Reason::CANCEL);
            return Poll::Ready(Ok(()));
        }
        pump.poll(cx)
    });
    let sent = sent.await;
    end(&mut pump, sent);
}

fn end<B: UploadBody>(pump: &mut H2Pump<B>, sent: Result<(), PumpError<B::Error>>) {
    match sent {
        Ok(()) => {}
        Err(PumpError::Body(error)) => {
            debug!(%error, "request body failed");
            pump.reset(Reason::CANCEL);
        }
        Err(PumpError::Stream(error)) => debug!(%error, "instance reset a stream"),
    }
}
