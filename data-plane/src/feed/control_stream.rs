//! A control stream: answers the questions of one control plane.
//!
//! ```text
//!   route stream open ─► connect ─► ControlHello ─► question ─► answer …
//!          ▲                                │  new certificate: the next stream is opened first
//!          │                                │ error, end
//!          └─── backoff; 60 s if the method is unknown ◄──┘
//! ```
//!
//! A control plane accepts the stream of a node that it knows by its route stream, at this address or
//! another one. An older control plane does not know the method: the node serves without.

use super::report::ReportSource;
use super::report::encode::{failure, time};
use super::{Connector, FeedState, Plane};
use crate::backoff::Backoff;
use crate::enrollment::PlaneAddress;
use crate::error_chain;
use crate::report::{ImageSource, Resolution};
use cless_proto::{bounds, v1 as pb};
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_control_request::Message as Reply;
use pb::stream_control_response::Message as Question;
use rand::rngs::SmallRng;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

/// Questions answered at the same time; the next is read once one of them is answered.
const MAX_CONCURRENT: usize = 8;

/// Answers that the control plane has not read yet. One more means a stalled peer.
const MAX_UNREAD: usize = 2 * MAX_CONCURRENT;

/// Bytes kept of a text of an answer.
const TEXT: usize = 2000;

/// News of a stream for [`super::control`].
#[derive(Debug)]
pub(super) enum StreamNews {
    /// The control plane accepted the stream.
    Opened,
    Closed,
    /// The addresses that it announced.
    Planes(Vec<PlaneAddress>),
}

/// Keeps a stream to one control plane.
pub(super) struct ControlStream {
    pub(super) shared: Arc<FeedState>,
    pub(super) source: Arc<dyn ReportSource>,
    pub(super) plane: Plane,
    pub(super) connect: Connector,
    pub(super) news: mpsc::Sender<(PlaneAddress, StreamNews)>,
    pub(super) rng: SmallRng,
}

#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot connect: {0}")]
    Connect(String),
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

/// An open stream.
struct Open {
    incoming: Streaming<pb::StreamControlResponse>,
    replies: mpsc::Sender<pb::StreamControlRequest>,
    answers: JoinSet<Reply>,
}

impl ControlStream {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.keep() => {}
        }
        // Nobody listens any more at a shutdown.
        let _ = self.news(StreamNews::Closed).await;
    }

    async fn keep(&mut self) {
        let timing = self.shared.timing.clone();
        let mut backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
        let mut connected = self.shared.status.subscribe();
        let mut said = false;
        loop {
            if connected.wait_for(|status| status.connected).await.is_err() {
                return;
            }
            let began = Instant::now();
            let end = match self.stream(&mut backoff).await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            if self.news(StreamNews::Closed).await.is_err() {
                return;
            }
            if let StreamEnd::Refused(status) = &end {
                self.shared.stream_refused(status);
            }
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
    }

    async fn news(&self, news: StreamNews) -> Result<(), StreamEnd> {
        let news = (self.plane.address.clone(), news);
        self.news.send(news).await.map_err(|_| StreamEnd::Closed)
    }

    /// Follows streams to the first end that is not followed by another stream.
    async fn stream(
        &mut self,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, StreamEnd> {
        let mut renewals = self.shared.renewals();
        let mut open = self.open().await?;
        self.news(StreamNews::Opened).await?;
        tracing::debug!("answering questions of the control plane");
        let mut redial_at = None;
        loop {
            tokio::select! {
                biased;
                end = self.answer(&mut open) => return end,
                () = renewals.next() => {}
                () = sleep_until(redial_at.unwrap_or_else(Instant::now)), if redial_at.is_some() => {}
            }
            // The control plane ends the old stream once the new one is open.
            redial_at = match self.open().await {
                Ok(next) => {
                    open = next;
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "no control stream with the new certificate yet");
                    Some(Instant::now() + backoff.next(&mut self.rng))
                }
            };
        }
    }

    async fn open(&self) -> Result<Open, StreamEnd> {
        let patience = self.shared.timing.first_message;
        let channel = (self.connect)(self.plane.clone()).await;
        let channel = channel.map_err(|error| StreamEnd::Connect(error_chain::text(&error)))?;
        let (replies, outgoing) = mpsc::channel(MAX_UNREAD);
        let hello = pb::ControlHello {
            node: Some(self.shared.node.identity()),
            boot_id: self.shared.node.boot_id.clone(),
        };
        send(&replies, Reply::Hello(hello))?;
        let mut client = RouteFeedServiceClient::new(channel);
        let opening = client.stream_control(ReceiverStream::new(outgoing));
        let opened = timeout(patience, opening).await;
        let incoming = opened.map_err(|_| StreamEnd::Unanswered)??.into_inner();
        Ok(Open {
            incoming,
            replies,
            answers: JoinSet::new(),
        })
    }

    /// Answers until the stream ends.
    async fn answer(&self, open: &mut Open) -> Result<std::convert::Infallible, StreamEnd> {
        let Open {
            incoming,
            replies,
            answers,
        } = open;
        loop {
            let received = tokio::select! {
                biased;
                // A panicked answer is none; the control plane gives up by its own deadline.
                Some(answered) = answers.join_next() => {
                    if let Ok(reply) = answered {
                        send(replies, reply)?;
                    }
                    continue;
                }
                received = incoming.message(), if answers.len() < MAX_CONCURRENT => received,
            };
            match received?.ok_or(StreamEnd::Closed)?.message {
                Some(Question::ResolveImage(question)) => {
                    answers.spawn(resolve(self.source.clone(), question));
                }
                // In order: the last one counts.
                Some(Question::SetDrain(question)) => {
                    let done = self.source.set_drained(question.drained).await;
                    let failure = done.err().unwrap_or_default();
                    let answer = pb::DrainAnswer {
                        id: question.id,
                        failure: bounds::sendable(&failure, TEXT),
                    };
                    send(replies, Reply::Drain(answer))?;
                }
                Some(Question::Planes(planes)) => {
                    let addresses = planes.addresses.iter();
                    let addresses = addresses.filter_map(|text| PlaneAddress::announced(text));
                    self.news(StreamNews::Planes(addresses.collect())).await?;
                }
                // A later kind of question.
                None => {}
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
