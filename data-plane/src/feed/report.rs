//! Reports what the node runs: at once on a change (coalesced) and every 10 s.
//!
//! A report is the whole state, so one that is lost is made good by the next. They go over the
//! connection of the feed's stream, while it answers: a node that is connected is one that reports.

mod encode;

use super::backoff::Backoff;
use super::{Shared, wire};
use crate::report::NodeReport;
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The last report, at shutdown, is given this long: it is a courtesy.
const FAREWELL: Duration = Duration::from_secs(1);

/// What there is to report.
pub trait ReportSource: Send + Sync + 'static {
    /// The state of the node now.
    fn report(&self) -> NodeReport;
    /// Changes with each change that should be reported at once.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Reports until cancelled.
pub(super) async fn run(
    shared: Arc<Shared>,
    source: Arc<dyn ReportSource>,
    mut link: watch::Receiver<Option<Channel>>,
    mut rng: SmallRng,
    cancel: CancellationToken,
) {
    let timing = &shared.timing;
    let mut backoff = Backoff::new(timing.backoff_floor, timing.backoff_ceiling);
    let mut changed = source.changed();
    let mut last = None;
    let mut failing = false;
    loop {
        let channel = tokio::select! {
        biased;
                    () = cancel.cancelled() => break,
                    // The client holds the sender until it is cancelled as well.
                    Ok(channel) = link.wait_for(Option::is_some) => channel.clone(),
                    else => break,
                };
        let Some(channel) = channel else { continue };
        // Seen before the report is taken: what changes after is reported again.
        changed.borrow_and_update();
        let sent = send(&shared, &*source, channel.clone(), timing.report_timeout).await;
        last = Some(channel);
        let wait = match sent {
            Ok(()) => {
                backoff.reset();
                failing = false;
                None
            }
            Err(status) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        code = ?status.code(),
                        error = status.message(),
                        "the control plane did not take this node's report; trying again"
                    );
                }
                Some(backoff.next(&mut rng))
            }
        };
        tokio::select! {
        biased;
                    () = cancel.cancelled() => break,
                    _ = link.changed() => {}
                    () = due(wait, &mut changed, timing) => {}
                }
    }
    if let Some(channel) = last {
        // Best effort: an instance that is gone would else be shown until the node is forgotten.
        let _ = send(&shared, &*source, channel, FAREWELL).await;
    }
}

/// Until the next report: the back-off after a failure, else a change or the interval.
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
            // An error is a source that no longer says when it changes: the interval remains.
            Ok(()) = changed.changed() => sleep(timing.report_coalesce).await,
        }
}

async fn send(
    shared: &Shared,
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
