//! Answers questions of the control planes: one stream to each configured address.
//!
//! ```text
//!   route stream open ─► connect ─► ControlHello ─► question ─► answer …
//!          ▲                                                      │ error, end
//!          └─────────── backoff; 60 s if the method is unknown ◄──┘
//! ```
//!
//! A control plane accepts the stream of a node that it knows by its route stream, at this address or
//! another one. An older control plane does not know the method: the node serves without.

use super::backoff::Backoff;
use super::report::ReportSource;
use super::report::encode::{failure, time};
use super::{Connector, FeedState};
use crate::report::{ImageSource, Resolution};
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_control_request::Message as Reply;
use pb::stream_control_response::Message as Question;
use rand::rngs::SmallRng;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// Questions answered at the same time; the next is read once one of them is answered.
const MAX_CONCURRENT: usize = 8;

/// Answers that the control plane has not read yet. One more means a stalled peer.
const MAX_UNREAD: usize = 2 * MAX_CONCURRENT;

/// Keeps a stream to one control plane.
pub(super) struct Control {
    pub(super) shared: Arc<FeedState>,
    pub(super) source: Arc<dyn ReportSource>,
    pub(super) endpoint: Endpoint,
    pub(super) connect: Connector,
    pub(super) rng: SmallRng,
}

/// The end of a stream.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the control plane did not answer in time")]
    Unanswered,
    #[error("the control plane ended the stream: {} ({})", .0.message(), .0.code())]
    Refused(#[from] Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read its answers")]
    Stalled,
}

impl StreamEnd {
    fn is_unknown_method(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unimplemented)
    }
}

impl Control {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let follow = async {
            let timing = self.shared.timing.clone();
            let mut backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
            let mut connected = self.shared.status.subscribe();
            let mut said = false;
            loop {
                if connected.wait_for(|status| status.connected).await.is_err() {
                    return;
                }
                let began = Instant::now();
                let end = match self.stream().await {
                    Ok(never) => match never {},
                    Err(end) => end,
                };
                if end.is_unknown_method() {
                    if !std::mem::replace(&mut said, true) {
                        tracing::debug!(
                            "this control plane asks nodes nothing: it is of an older version"
                        );
                    }
                    sleep(timing.control_retry).await;
                    continue;
                }
                tracing::debug!(error = %end, "the control stream has ended");
                // A stream that is opened and closed at once says nothing about health.
                if began.elapsed() >= timing.backoff_ceiling {
                    backoff.reset();
                }
                sleep(backoff.next(&mut self.rng)).await;
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = follow => {}
        }
    }

    async fn stream(&self) -> Result<std::convert::Infallible, StreamEnd> {
        let patience = self.shared.timing.first_message;
        let channel = (self.connect)(self.endpoint.clone()).await?;
        let (replies, outgoing) = mpsc::channel(MAX_UNREAD);
        let hello = pb::ControlHello {
            node: Some(self.shared.node.identity()),
            boot_id: self.shared.node.boot_id.clone(),
        };
        send(&replies, Reply::Hello(hello))?;
        let mut client = RouteFeedServiceClient::new(channel);
        let opening = client.stream_control(ReceiverStream::new(outgoing));
        let opened = timeout(patience, opening).await;
        let mut incoming = opened.map_err(|_| StreamEnd::Unanswered)??.into_inner();
        tracing::debug!("answering questions of the control plane");
        let mut answers: JoinSet<Reply> = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                // A panicked answer is none; the control plane gives up by its own deadline.
                Some(answered) = answers.join_next() => if let Ok(reply) = answered {
                    send(&replies, reply)?;
                },
                received = incoming.message(), if answers.len() < MAX_CONCURRENT => {
                    match received?.ok_or(StreamEnd::Closed)?.message {
                        Some(Question::ResolveImage(question)) => {
                            answers.spawn(resolve(self.source.clone(), question));
                        }
                        // A later kind of question.
                        Some(Question::SetDrain(_) | Question::Planes(_)) | None => {}
                    }
                }
            }
        }
    }
}

fn send(replies: &mpsc::Sender<pb::StreamControlRequest>, reply: Reply) -> Result<(), StreamEnd> {
    let request = pb::StreamControlRequest {
        message: Some(reply),
    };
    replies.try_send(request).map_err(|_| StreamEnd::Stalled)
}

async fn resolve(source: Arc<dyn ReportSource>, question: pb::ResolveImage) -> Reply {
    let answer = source.resolve_image(&question.image, question.local_only);
    Reply::Image(encode(question.id, answer.await))
}

fn encode(id: u64, answer: Resolution) -> pb::ImageAnswer {
    use pb::resolved_image::Source;
    match answer {
        Ok(image) => pb::ImageAnswer {
            id,
            image_digest: image.digest.unwrap_or_default(),
            image: Some(pb::ResolvedImage {
                source: match image.source {
                    ImageSource::Registry => Source::Registry,
                    ImageSource::LocalCopy => Source::LocalCopy,
                    ImageSource::LocalImage => Source::LocalImage,
                }
                .into(),
                id: image.id.unwrap_or_default(),
                create_time: image.created.map(time),
                resolve_time: Some(time(image.resolved_at)),
                node: String::new(),
                warning: image.warning.unwrap_or_default(),
            }),
            failure: None,
        },
        Err(failed) => pb::ImageAnswer {
            id,
            image: None,
            image_digest: String::new(),
            failure: Some(failure(*failed)),
        },
    }
}
