//! The streams of a client's connection, each a request.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use tracing::debug;

use super::super::body::Body;
use super::super::client::Client;
use super::super::connection::drive;
use super::super::extended;
use super::super::gather::Gather;
use super::super::incoming::Incoming;
use super::super::service;
use super::super::tunnel;
use super::super::wire::Wire;
use super::super::worker::Worker;
use super::byte_stream::ByteStream;
use super::pump::{Failed, Pump};
use super::received::Received;
use super::{CONNECTION_WINDOW, Error, SEND_BUFFER, STREAM_WINDOW};

/// Streams that were reset before they were taken up: their memory is ours until then (rapid reset).
const PENDING_RESETS: usize = 20;
/// Streams that we reset for a fault of the client's.
const FAULTY_STREAMS: usize = 100;

/// Serves a connection to its end.
///
/// # Errors
/// If the client broke the protocol, or its connection broke.
pub(in super::super) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    wire: Wire,
) -> Result<(), Error> {
    let limits = &worker.node.limits;
    let gather = Gather::new(wire);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.max_streams)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(FAULTY_STREAMS));
    let mut shaking = builder.handshake(gather.clone());
    let mut connection = poll_fn(|cx| {
        let turn = shaking.poll_unpin(cx);
        gather.after(cx, turn.map_err(Error::from), |error| Err(error.into()))
    })
    .await?;
    drive(&client, |cx, drain| {
        if drain {
            connection.graceful_shutdown();
        }
        let turn = accept(&worker, &client, &mut connection, cx);
        gather.after(cx, turn.map_err(Error::from), |error| Err(error.into()))
    })
    .await
}

/// Has each new stream served by a task of its own.
fn accept(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    connection: &mut Connection<Gather<Wire>, Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    loop {
        match connection.poll_accept(cx)? {
            Poll::Ready(Some((request, respond))) => {
                let served = serve_stream(worker.clone(), client.clone(), request, respond);
                // In a box, so that its kilobytes are moved once and not at each step of spawning.
                tokio::task::spawn_local(Box::pin(served));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Answers a request, and passes the answer's body on.
async fn serve_stream(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let wanted = Rc::new(Cell::new(false));
    let (request, tunnel) = taken_up(request, &wanted);
    // In a block, so that what follows takes the room of the answer's future.
    let response = {
        let answer = pin!(service::handle(worker.clone(), client, request));
        answered(answer, &mut respond, &wanted).await
    };
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    if !head.headers.contains_key(header::DATE) {
        head.headers.insert(header::DATE, worker.date());
    }
    let (body, switched) = body.or_tunnel();
    let over = switched.is_none() && body.is_end_stream();
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        let fields = head.headers.entry(header::CONTENT_LENGTH);
        fields.or_insert_with(|| length.into());
    }
    let sends = match respond.send_response(Response::from_parts(head, ()), over) {
        Ok(sends) => sends,
        Err(error) => {
            debug!(%error, "a response was not sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    match (switched, tunnel) {
        (Some(switched), Some(received)) => {
            let client = ByteStream::new(received, sends);
            let tunnel = tunnel::run(worker.clone(), std::future::ready(Ok(client)), switched);
            // In a box: few streams are tunnels, and all would be as large.
            Box::pin(worker.node.tunnels.track_future(tunnel)).await;
        }
        _ if over => {}
        _ => {
            let mut pump = Pump::new(body, sends);
            let passed = poll_fn(|cx| pump.poll(cx, Reason::INTERNAL_ERROR)).await;
            match passed {
                Ok(()) => {}
                Err(Failed::Body(error)) => debug!(%error, "a response was cut"),
                Err(Failed::Stream(error)) => debug!(%error, "a client left its stream"),
            }
        }
    }
}

/// The request as it is handled, and what the client sends if it may become a tunnel.
fn taken_up(
    request: Request<RecvStream>,
    wanted: &Rc<Cell<bool>>,
) -> (Box<Request<Incoming>>, Option<RecvStream>) {
    let tunnels = extended::is_extended(&request);
    let (head, received) = request.into_parts();
    if tunnels {
        return (
            Box::new(Request::from_parts(head, Incoming::None)),
            Some(received),
        );
    }
    let mut body = Received::new(received, &head.headers);
    if head.headers.contains_key(header::EXPECT) {
        body.tell_when_wanted(wanted.clone());
    }
    let body = Incoming::Http2(body);
    (Box::new(Request::from_parts(head, body)), None)
}

/// The answer; `None` if the client takes its request back before. A stream that was reset is looked for first,
/// so that nothing of it is passed on.
async fn answered(
    mut answer: Pin<&mut impl Future<Output = Response<Body>>>,
    respond: &mut SendResponse<Bytes>,
    wanted: &Cell<bool>,
) -> Option<Response<Body>> {
    poll_fn(|cx| {
        if let Poll::Ready(reset) = respond.poll_reset(cx) {
            debug!(?reset, "a client took its request back");
            return Poll::Ready(None);
        }
        let answer = answer.as_mut().poll(cx);
        // RFC 9110 section 10.1.1.
        if answer.is_pending() && wanted.take() {
            let mut go = Response::new(());
            *go.status_mut() = StatusCode::CONTINUE;
            let _ = respond.send_informational(go);
        }
        answer.map(Some)
    })
    .await
}
