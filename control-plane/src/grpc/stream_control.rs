//! Drives one `StreamControl` call: the addresses of the control planes and questions to a node, and
//! its answers.
//!
//! One task per stream. It ends with the transport, at shutdown, when a newer stream of the node
//! replaces it, or with the first message that is out of order.

use crate::domain::Violations;
use crate::feed::stream::{HELLO_TIMEOUT, STALL_LIMIT, StreamCloseReason};
use crate::grpc::convert::control;
use crate::grpc::speaker::Speaker;
use crate::grpc::stream_routes::{FINAL_SEND_TIMEOUT, Requests, is_refusal};
use crate::grpc::{status, validated};
use crate::nodes::Nodes;
use crate::nodes::control::ControlStream;
use crate::nodes::planes::Addresses;
use crate::nodes::registry::NotConnected;
use cless_proto::v1 as pb;
use pb::stream_control_request::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument as _;

type ResponseItem = Result<pb::StreamControlResponse, Status>;

/// The responses of the call.
pub(crate) type Responses = ReceiverStream<ResponseItem>;

/// Serves a stream in a new task, which ends with the stream.
pub(crate) fn serve(
    inbound: impl Requests<pb::StreamControlRequest>,
    nodes: &Nodes,
    planes: watch::Receiver<Addresses>,
    speaker: Speaker,
    shutdown: CancellationToken,
) -> Responses {
    let (outbound, responses) = mpsc::channel(1);
    let nodes = nodes.clone();
    let span = tracing::error_span!("control_stream");
    let run = async move {
        if let Err(status) = run(inbound, &nodes, planes, &speaker, &outbound, shutdown).await {
            tracing::info!(rpc.code = ?status.code(), reason = status.message(), "control stream ended");
            let _ = tokio::time::timeout(FINAL_SEND_TIMEOUT, outbound.send(Err(status))).await;
        }
    };
    tokio::spawn(run.instrument(span));
    ReceiverStream::new(responses)
}

/// `Ok`: the transport ended.
async fn run(
    mut inbound: impl Requests<pb::StreamControlRequest>,
    nodes: &Nodes,
    planes: watch::Receiver<Addresses>,
    speaker: &Speaker,
    outbound: &mpsc::Sender<ResponseItem>,
    shutdown: CancellationToken,
) -> Result<(), Status> {
    let first = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Err(status::shutting_down()),
        () = outbound.closed() => return Ok(()),
        first = tokio::time::timeout(HELLO_TIMEOUT, inbound.next()) => first,
    };
    let hello = match first {
        Err(_elapsed) => return Err(status::stream_closed(StreamCloseReason::NoHello)),
        Ok(Some(Err(status))) if is_refusal(&status) => return Err(status),
        Ok(None | Some(Err(_))) => return Ok(()),
        Ok(Some(Ok(message))) => match message.message {
            Some(Message::Hello(hello)) => hello,
            _ => return Err(status::stream_closed(StreamCloseReason::Protocol)),
        },
    };
    let mut violations = Violations::new();
    let hello = control::read_hello(hello, &mut violations);
    let (identity, boot_id) = validated(hello, violations)?;
    speaker.check(&identity.id, identity.name.as_str())?;
    let node = identity.id;
    let mut stream = nodes
        .open_control(&node, &boot_id)
        .map_err(|NotConnected| status::node_not_connected(&node))?;
    let ended = exchange(&mut stream, &mut inbound, nodes, planes, outbound, shutdown).await;
    nodes.close_control(&stream);
    ended
}

async fn exchange(
    stream: &mut ControlStream,
    inbound: &mut impl Requests<pb::StreamControlRequest>,
    nodes: &Nodes,
    mut planes: watch::Receiver<Addresses>,
    outbound: &mpsc::Sender<ResponseItem>,
    shutdown: CancellationToken,
) -> Result<(), Status> {
    planes.mark_changed();
    loop {
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(status::shutting_down()),
            () = stream.replaced.cancelled() => return Err(status::stream_replaced()),
            () = outbound.closed() => return Ok(()),
            message = inbound.next() => match message {
                Some(Err(status)) if is_refusal(&status) => return Err(status),
                None | Some(Err(_)) => return Ok(()),
                Some(Ok(message)) => match message.message {
                    Some(Message::Image(answer)) => {
                        let (question, answer) = control::read_answer(answer);
                        nodes.answer(stream, question, answer);
                        continue;
                    }
                    Some(Message::Drain(answer)) => {
                        let (question, answer) = control::read_drain_answer(answer);
                        nodes.answer(stream, question, answer);
                        continue;
                    }
                    _ => return Err(status::stream_closed(StreamCloseReason::Protocol)),
                },
            },
            Ok(()) = planes.changed() => {
                let addresses = planes.borrow_and_update().clone();
                control::planes(&addresses)
            }
            Some(question) = stream.questions.recv() => control::question(question),
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(status::shutting_down()),
            sent = tokio::time::timeout(STALL_LIMIT, outbound.send(Ok(next))) => {
                if !matches!(sent, Ok(Ok(()))) {
                    return Ok(());
                }
            }
        }
    }
}
