//! Keeps control streams: one task to each address that [`ControlTargets`] wants.

use super::control_stream::{ControlStream, StreamNews};
use super::control_targets::ControlTargets;
use super::report::ReportSource;
use super::{Connector, FeedState, Plane};
use crate::enrollment::PlaneAddress;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

/// News that streams may send ahead of this task.
const UNREAD_NEWS: usize = 16;

/// Keeps the control streams of a node.
pub(super) struct Control {
    pub(super) shared: Arc<FeedState>,
    pub(super) source: Arc<dyn ReportSource>,
    pub(super) configured: Vec<Plane>,
    pub(super) connect: Connector,
    pub(super) rng: SmallRng,
}

impl Control {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let configured = self.configured.iter().map(|plane| plane.address.clone());
        let mut targets = ControlTargets::new(configured);
        let (news, mut received) = mpsc::channel(UNREAD_NEWS);
        // A stream ends when its guard is dropped.
        let mut running = BTreeMap::<PlaneAddress, DropGuard>::new();
        loop {
            let wanted = targets.wanted();
            running.retain(|address, _| wanted.contains(address));
            for address in wanted {
                if !running.contains_key(&address)
                    && let Some(guard) = self.begin(&address, &news, &cancel)
                {
                    running.insert(address, guard);
                }
            }
            let (address, news) = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                // Never closed: `news` is here.
                Some(news) = received.recv() => news,
                else => return,
            };
            let before = targets.known();
            match news {
                StreamNews::Opened => targets.opened(address),
                StreamNews::Closed => targets.closed(&address),
                StreamNews::Planes(addresses) => targets.announce(addresses),
            }
            let known = targets.known();
            if known != before {
                self.source.control_planes(known.into_iter().collect());
            }
        }
    }

    /// Begins a stream; `None` if tonic rejects the address.
    fn begin(
        &mut self,
        address: &PlaneAddress,
        news: &mpsc::Sender<(PlaneAddress, StreamNews)>,
        cancel: &CancellationToken,
    ) -> Option<DropGuard> {
        let plane = Plane::new(address.clone(), &self.shared.timing).ok()?;
        let stream = ControlStream {
            shared: self.shared.clone(),
            source: self.source.clone(),
            plane,
            connect: self.connect.clone(),
            news: news.clone(),
            rng: SmallRng::from_rng(&mut self.rng),
        };
        let span = tracing::error_span!(
            "control",
            node = self.shared.node.name,
            control_plane = %address,
        );
        let cancel = cancel.child_token();
        tokio::spawn(stream.run(cancel.clone()).instrument(span));
        Some(cancel.drop_guard())
    }
}
