//! HTTP/2 connections to instances: each shared by all requests of a worker.
//!
//! A request goes from the task that serves it straight into its stream, with as much of its body as is here; only
//! a body that is not here whole gets a task of its own. The connection's task moves frames, and nothing else
//! stands between.
//!
//! No PING asks whether an instance lives: its death is told by the engine, a request has its time, and servers of
//! gRPC end the connection of a client that asks while they are silent.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{Request, Response};
use http_body::Body as _;
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::super::body::RequestBody;
use super::super::gather::Gather;
use super::super::http2::pump::{Failed, Pump};
use super::super::http2::received::Received;
use super::super::http2::{CONNECTION_WINDOW, Error, SEND_BUFFER, STREAM_WINDOW};
use super::super::incoming::Incoming;
use super::super::joined::Joined;

/// Bytes of a response's head.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection. Clones are the same one; it closes with the last of them and the last stream.
#[derive(Debug, Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
}

impl Http2 {
    /// Over a new `stream`. `open`: counts it while it is open.
    pub(super) async fn new(
        stream: Joined<TcpStream>,
        address: SocketAddr,
        open: TaskTrackerToken,
    ) -> io::Result<Self> {
        let gather = Gather::new(stream);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD);
        let shaken = builder.handshake(gather.clone()).await;
        let (sender, mut connection) = shaken.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                let turn = connection.poll_unpin(cx);
                gather.after(cx, turn.map_err(Error::from), |error| Err(error.into()))
            });
            if let Err(error) = ended.await {
                debug!(%address, %error, "a connection to an instance ended");
            }
            drop(open);
        });
        Ok(Self { sender })
    }

    /// It takes no more requests: it is broken, its instance said so (GOAWAY), or its streams are used up.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        matches!(self.sender.poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// Sends a request; waits for the response's head.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, h2::Error> {
        let response = self.begin(*request)?;
        let (head, received) = response.await?.into_parts();
        let body = Incoming::Http2(Received::new(received, &head.headers));
        Ok(Response::from_parts(head, body))
    }

    /// Passes on the head, and what is here of the body; what is not, in a task.
    fn begin(&mut self, request: Request<RequestBody>) -> Result<ResponseFuture, h2::Error> {
        let (head, body) = request.into_parts();
        let over = body.is_end_stream();
        let head = Request::from_parts(head, ());
        let (response, stream) = self.sender.send_request(head, over)?;
        if !over {
            let mut pump = Pump::new(body, stream);
            // Nobody needs to be woken: a task looks again at once.
            let mut nobody = Context::from_waker(Waker::noop());
            match pump.poll(&mut nobody, Reason::CANCEL) {
                Poll::Ready(passed) => told(passed),
                Poll::Pending => {
                    tokio::task::spawn_local(pass_on(pump));
                }
            }
        }
        Ok(response)
    }
}

/// Passes the rest of a request's body on, as long as somebody waits for the response.
async fn pass_on(mut pump: Pump<RequestBody>) {
    let passed = poll_fn(|cx| {
        if pump.body().poll_unread(cx).is_ready() {
            pump.reset(Reason::CANCEL);
            return Poll::Ready(Ok(()));
        }
        pump.poll(cx, Reason::CANCEL)
    });
    told(passed.await);
}

fn told<E: std::fmt::Display>(passed: Result<(), Failed<E>>) {
    match passed {
        Ok(()) => {}
        Err(Failed::Body(error)) => debug!(%error, "a request was cut"),
        Err(Failed::Stream(error)) => debug!(%error, "an instance left a request's body"),
    }
}
