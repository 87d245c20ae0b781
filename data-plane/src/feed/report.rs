//! Reports what the node runs: at once after a change (coalesced), and every 10 s.
//!
//! A report holds the complete state, so the next one replaces a lost one. Reports use the
//! connection of the feed's stream, and count only while that is open. Between the end of a stream
//! and the Hello of the next one they are refused (NODE_NOT_CONNECTED) and repeated with back-off.

pub(super) mod encode;

use super::{FeedState, wire};
use crate::backoff::Backoff;
use crate::enrollment::PlaneAddress;
use crate::report::{FailureReason, NodeReport, Resolution, StartFailure};
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Timeout of the final, best-effort report at shutdown.
const FINAL_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Source of the reports, and of answers to questions of the control plane.
#[async_trait::async_trait]
pub trait ReportSource: Send + Sync + 'static {
    /// The current state of the node.
    fn report(&self) -> NodeReport;
    /// A receiver that changes when a report is due at once.
    fn changed(&self) -> watch::Receiver<u64>;
    /// The image that a reference names now; `local_only`: on this node. By default, none can be
    /// resolved.
    async fn resolve_image(&self, _image: &str, _local_only: bool) -> Resolution {
        let message = "this node resolves no images".to_owned();
        let (reason, now) = (FailureReason::Engine, SystemTime::now());
        Err(Box::new(StartFailure::new(reason, message, now)))
    }
    /// Drains the node, or puts it into service again, and stores that.
    ///
    /// # Errors
    /// The reason why it could not be stored; then nothing has changed. By default, always.
    async fn set_drained(&self, _drained: bool) -> Result<(), String> {
        Err("this node cannot be drained".to_owned())
    }
    /// Takes the addresses of the control planes that this node knows. By default, ignores them.
    fn control_planes(&self, _addresses: Vec<PlaneAddress>) {}
}

pub(super) async fn run(
    shared: Arc<FeedState>,
    source: Arc<dyn ReportSource>,
    mut connection: watch::Receiver<Option<Channel>>,
    mut rng: SmallRng,
    cancel: CancellationToken,
) {
    let timing = &shared.timing;
    let mut backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
    let mut changed = source.changed();
    let mut last = None;
    let (mut failing, mut refused) = (false, false);
    loop {
        let channel = tokio::select! {
        biased;
                    () = cancel.cancelled() => break,
                    // The client keeps the sender until it is cancelled as well.
                    Ok(channel) = connection.wait_for(Option::is_some) => channel.clone(),
                    else => break,
                };
        let Some(channel) = channel else { continue };
        // Marked as seen before the report is taken: a later change is reported again.
        changed.borrow_and_update();
        let sent = send(&shared, &*source, channel.clone(), timing.report_timeout).await;
        last = Some(channel);
        let wait = match sent {
            Ok(()) => {
                backoff.reset();
                (failing, refused) = (false, false);
                None
            }
            Err(status) => {
                // The first refusal is ordinary while a stream is being replaced.
                let ordinary = status.code() == tonic::Code::FailedPrecondition && !refused;
                refused = true;
                if ordinary {
                    tracing::debug!(error = status.message(), "a report was early; retrying");
                } else if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        code = ?status.code(),
                        error = status.message(),
                        "the control plane did not accept this node's report; retrying"
                    );
                }
                Some(backoff.next(&mut rng))
            }
        };
        tokio::select! {
        biased;
                    () = cancel.cancelled() => break,
                    _ = connection.changed() => {}
                    () = due(wait, &mut changed, timing) => {}
                }
    }
    if let Some(channel) = last {
        // Best effort: otherwise a removed instance is shown until the control plane forgets the
        // node.
        let _ = send(&shared, &*source, channel, FINAL_REPORT_TIMEOUT).await;
    }
}

/// Waits for the next report: the backoff after a failure, otherwise a change or the interval.
async fn due(
    backoff: Option<Duration>,
    changed: &mut watch::Receiver<u64>,
    timing: &super::Timing,
) {
    if let Some(wait) = backoff {
        return sleep(wait).await;
    }
    tokio::select! {
    biased;
            () = sleep(timing.report_interval) => {}
            // If the source is gone, only the interval remains.
            Ok(()) = changed.changed() => sleep(timing.report_coalesce).await,
        }
}

async fn send(
    shared: &FeedState,
    source: &dyn ReportSource,
    channel: Channel,
    within: Duration,
) -> Result<(), tonic::Status> {
    let request = encode::request(&shared.node, source.report());
    let mut client = RouteFeedServiceClient::new(channel);
    match timeout(within, client.report_node_status(request)).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
    }
}
