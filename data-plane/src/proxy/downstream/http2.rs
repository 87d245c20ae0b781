//! The streams of a client's HTTP/2 connection, each a request (RFC 9113), by the `h2` crate.
//!
//! hyper puts a queue, a task and two channels between a message and its stream. Here one task
//! serves a stream from its head to its end, and a reset is an error ([`H2Body`]).
//!
//! ```text
//!  connection task: serve ─ a task for each stream ─► handler::handle ─► H2Pump ─► SendStream
//!                   H2Body ◄─ RecvStream               (tunnel::run ◄─► H2ByteStream)
//! ```

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use tracing::debug;

use super::drive::drive;
use super::h2_frames::FrameMeter;
use super::metered_io::MeteredIo;
use crate::proxy::client::ClientConn;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::context::StreamSignals;
use crate::proxy::request::{h2_websocket, handler, tunnel};
use crate::proxy::wire::h2::{CONNECTION_WINDOW, Error, SEND_BUFFER, STREAM_WINDOW};
use crate::proxy::wire::h2_byte_stream::H2ByteStream;
use crate::proxy::wire::h2_pump::{H2Pump, PumpError};
use crate::proxy::wire::h2_received::H2Body;
use crate::proxy::wire::incoming::Incoming;
use crate::proxy::wire::write_coalescer::WriteCoalescer;
use crate::proxy::worker::Worker;

/// Limit of streams that were reset before they were accepted, which hold memory (rapid reset).
const MAX_PENDING_RESETS: usize = 20;
/// Limit of streams that the proxy resets for protocol errors of the client.
const MAX_ERROR_RESETS: usize = 100;
/// Time between two checks whether a connection has written its frames, and the limit of checks:
/// 10 s. A client that reads nothing is cut by the write timeout.
const FLUSH_WAIT: Duration = Duration::from_millis(10);
const MAX_FLUSH_WAITS: u32 = 1000;

/// The limit of a head for `h2`, in bytes. `h2` answers a longer one without the fields that
/// responses of cless have, so its limit is above that of the handler, which has them.
fn max_list(max_header_bytes: usize) -> u32 {
    u32::try_from(max_header_bytes.saturating_mul(4)).unwrap_or(u32::MAX)
}

/// Serves a connection to its end.
///
/// # Errors
/// If the client violates the protocol, or its connection breaks.
pub(super) async fn serve(
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    io: MeteredIo,
) -> Result<(), Error> {
    let limits = &worker.proxy.limits;
    let io = FrameMeter::new(io, client.clone(), limits.max_resets);
    let coalescer = WriteCoalescer::new(io);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.max_streams)
        .enable_connect_protocol()
        .max_header_list_size(max_list(limits.max_header_bytes))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS));
    let mut handshake = builder.handshake(coalescer.clone());
    let mut connection = poll_fn(|cx| {
        let turn = handshake.poll_unpin(cx);
        coalescer.end_turn(cx, turn.map_err(Error::from), |error| Err(error.into()))
    })
    .await?;
    drive(&client, |cx, shut_down| {
        if shut_down {
            connection.graceful_shutdown();
        }
        let turn = accept(&worker, &client, &mut connection, cx);
        coalescer.end_turn(cx, turn.map_err(Error::from), |error| Err(error.into()))
    })
    .await
}

fn accept(
    worker: &Rc<Worker>,
    client: &Rc<ClientConn>,
    connection: &mut Connection<WriteCoalescer<FrameMeter<MeteredIo>>, Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    loop {
        match connection.poll_accept(cx)? {
            Poll::Ready(Some((request, respond))) => {
                let served = serve_stream(worker.clone(), client.clone(), request, respond);
                // Boxed, so that its kilobytes are moved once and not at each step of spawning.
                tokio::task::spawn_local(Box::pin(served));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
    }
}

async fn serve_stream(
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let signals = Rc::new(StreamSignals::default());
    let (request, tunnel_input) = split_tunnel(request, &signals);
    // In a block, so that later variables reuse the space of the response future.
    let response = {
        let response = pin!(handler::handle(
            worker.clone(),
            client.clone(),
            request,
            Some(signals.clone())
        ));
        response_or_reset(&client, response, &mut respond, &signals).await
    };
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    if !head.headers.contains_key(header::DATE) {
        head.headers.insert(header::DATE, worker.date());
    }
    let (body, tunnel) = body.or_tunnel();
    let is_over = tunnel.is_none() && body.is_end_stream();
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        let field = head.headers.entry(header::CONTENT_LENGTH);
        field.or_insert_with(|| length.into());
    }
    let sends = match respond.send_response(Response::from_parts(head, ()), is_over) {
        Ok(sends) => sends,
        Err(error) => {
            client
                .span()
                .in_scope(|| debug!(%error, "cannot send a response head"));
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    match (tunnel, tunnel_input) {
        (Some(tunnel), Some(received)) => {
            let stream = H2ByteStream::new(received, sends);
            let tunnel = tunnel::run(worker.clone(), std::future::ready(Ok(stream)), tunnel);
            // Boxed: few streams are tunnels, and all would be as large.
            Box::pin(worker.proxy.tunnels.track_future(tunnel)).await;
        }
        _ if is_over => {}
        _ => {
            let mut pump = H2Pump::new(body, sends);
            match poll_fn(|cx| pump.poll(cx)).await {
                Ok(()) => {}
                Err(PumpError::Body(error)) => {
                    client
                        .span()
                        .in_scope(|| debug!(%error, "response body failed"));
                    Box::pin(until_written(&client, &mut pump)).await;
                    pump.reset(Reason::INTERNAL_ERROR);
                }
                Err(PumpError::Stream(error)) => {
                    client
                        .span()
                        .in_scope(|| debug!(%error, "client reset its stream"));
                }
            }
        }
    }
}

/// Waits until the connection has written the frames of a stream, which a reset would drop. The
/// client must see the head of a response that breaks: without it, it may send the request again.
async fn until_written(client: &ClientConn, pump: &mut H2Pump<ResponseBody>) {
    for _ in 0..MAX_FLUSH_WAITS {
        // The connection's task was woken before, so it takes its turn first.
        tokio::task::yield_now().await;
        if !client.counters.is_blocked() {
            return;
        }
        let reset = poll_fn(|cx| pump.poll_reset(cx));
        if tokio::time::timeout(FLUSH_WAIT, reset).await.is_ok() {
            return;
        }
    }
}

/// The request with its body, and the receiving half of a stream that may become a tunnel.
fn split_tunnel(
    request: Request<RecvStream>,
    signals: &Rc<StreamSignals>,
) -> (Box<Request<Incoming>>, Option<RecvStream>) {
    let is_tunnel = h2_websocket::is_extended_connect(&request);
    let (head, received) = request.into_parts();
    if is_tunnel {
        let request = Request::from_parts(head, Incoming::Empty);
        return (Box::new(request), Some(received));
    }
    let mut body = H2Body::new(received, &head.headers);
    body.drain_on_drop();
    if head.headers.contains_key(header::EXPECT) {
        let signals = signals.clone();
        body.notify_awaited(Box::new(move || signals.is_awaited.set(true)));
    }
    let body = Incoming::Http2(body);
    (Box::new(Request::from_parts(head, body)), None)
}

/// The response; `None` if the client resets the stream before it. The reset is polled first, so
/// that nothing of a cancelled request is passed on.
async fn response_or_reset(
    client: &ClientConn,
    mut response: Pin<&mut impl Future<Output = Response<ResponseBody>>>,
    respond: &mut SendResponse<Bytes>,
    signals: &StreamSignals,
) -> Option<Response<ResponseBody>> {
    poll_fn(|cx| {
        if let Poll::Ready(reset) = respond.poll_reset(cx) {
            client
                .span()
                .in_scope(|| debug!(?reset, "client cancelled its request"));
            return Poll::Ready(None);
        }
        let response = response.as_mut().poll(cx);
        // RFC 9110 section 10.1.1.
        if response.is_pending() && signals.is_awaited.take() {
            let mut proceed = Response::new(());
            *proceed.status_mut() = StatusCode::CONTINUE;
            let _ = respond.send_informational(proceed);
        }
        for interim in signals.interim.borrow_mut().drain(..) {
            let _ = respond.send_informational(interim);
        }
        response.map(Some)
    })
    .await
}
