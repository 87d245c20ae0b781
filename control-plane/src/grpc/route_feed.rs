//! `RouteFeedService`: the route table for nodes and people, and the status reports of nodes.

use super::convert::{feed, nodes};
use super::peer::Peer;
use super::stream_routes::{self, Responses};
use super::{Api, caller, page, parsed, status, stream_control, validated};
use crate::auth::Caller;
use crate::domain::{ServiceId, Uid, Violations, name};
use crate::feed::Feed;
use crate::feed::stream::{History as _, STALL_LIMIT};
use crate::nodes::Nodes;
use crate::nodes::registry::NotConnected;
use cless_proto::v1 as pb;
use cless_proto::v1::route_feed_service_server::RouteFeedService;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type WatchItem = Result<pb::WatchRoutesResponse, Status>;

#[tonic::async_trait]
impl RouteFeedService for Api {
    type StreamRoutesStream = Responses;
    type WatchRoutesStream = ReceiverStream<WatchItem>;
    type StreamControlStream = stream_control::Responses;

    async fn stream_control(
        &self,
        request: Request<Streaming<pb::StreamControlRequest>>,
    ) -> Result<Response<Self::StreamControlStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(stream_control::serve(
            request.into_inner(),
            &self.nodes,
            self.planes.subscribe(),
            self.speaker(caller),
            self.shutdown.clone(),
        )))
    }

    async fn stream_routes(
        &self,
        request: Request<Streaming<pb::StreamRoutesRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = caller(&request)?;
        let peer = request.extensions().get::<Peer>();
        let certificate = peer.and_then(|peer| peer.certificate.clone());
        let speaker = self.speaker(caller).with_certificate(certificate);
        Ok(Response::new(stream_routes::serve(
            request.into_inner(),
            &self.feed,
            &self.nodes,
            speaker,
            stream_routes::lifetime(&mut rand::rng()),
            !self.store.is_shared(),
            self.shutdown.clone(),
        )))
    }

    async fn watch_routes(
        &self,
        request: Request<pb::WatchRoutesRequest>,
    ) -> Result<Response<ReceiverStream<WatchItem>>, Status> {
        let caller = caller(&request)?;
        let service = request.into_inner().service;
        let mut only = None;
        if !service.is_empty() {
            let service = parsed("service", name::parse_service(&service))?;
            self.permit(&caller, &service)?;
            only = Some(service.to_string());
        }
        let selection = Selection { only, caller };
        let (outbound, responses) = mpsc::channel(1);
        tokio::spawn(watch(
            self.feed.clone(),
            selection,
            outbound,
            self.shutdown.clone(),
        ));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn report_node_status(
        &self,
        request: Request<pb::ReportNodeStatusRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let identity = nodes::read_identity("node", request.node.clone(), &mut Violations::new());
        // An invalid identity is refused later.
        if let Some(identity) = &identity {
            self.speaker(caller)
                .check(&identity.id, identity.name.as_str())?;
        }
        // A stream to another control plane may be newer than what is known of it here.
        if self.store.is_shared() && !holds_stream(&self.nodes, &request) {
            self.replicas.refresh().await.map_err(status::store)?;
        }
        accept_report(&self.nodes, request).map(Response::new)
    }

    async fn list_retained_images(
        &self,
        request: Request<pb::ListRetainedImagesRequest>,
    ) -> Result<Response<pb::ListRetainedImagesResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let after = page::parsed_key(RETAINED_IMAGES, &request.page_token, |key| {
            Uid::parse(key).ok()
        })
        .map_err(status::invalid_page)?;
        let head = self.store.head().await.map_err(status::store)?;
        let found = self
            .store
            .list_retained_images(size, after.as_ref())
            .await
            .map_err(status::store)?;
        let next_page_token =
            page::next_token(&found, RETAINED_IMAGES, |one| one.version.to_string());
        Ok(Response::new(pb::ListRetainedImagesResponse {
            images: found.items.iter().map(feed::retained_image).collect(),
            next_page_token,
            cluster: head.cluster,
        }))
    }
}

/// Validates the status report of a connected node and stores it in the registry.
pub(crate) fn accept_report(
    nodes: &Nodes,
    report: pb::ReportNodeStatusRequest,
) -> Result<(), Status> {
    let mut violations = Violations::new();
    let report = nodes::read_report(report, &mut violations);
    let (identity, boot_id, report) = validated(report, violations)?;
    nodes
        .report(&identity, &boot_id, report)
        .map_err(|NotConnected| status::node_not_connected(&name::node(&identity.name)))
}

/// Whether the sender of a report has an open stream, as far as this control plane knows.
fn holds_stream(nodes: &Nodes, report: &pb::ReportNodeStatusRequest) -> bool {
    let identity = nodes::read_identity("node", report.node.clone(), &mut Violations::new());
    // An invalid identity is refused later.
    identity.is_none_or(|identity| nodes.holds_stream(&identity, &report.boot_id))
}

/// Name of the list in its page tokens.
const RETAINED_IMAGES: &str = "retained images";

/// The routes that a watch shows.
struct Selection {
    /// Id of the only service; `None`: all.
    only: Option<String>,
    caller: Caller,
}

impl Selection {
    fn is_partial(&self) -> bool {
        self.only.is_some() || self.caller.principal().scope().is_some()
    }

    fn has(&self, service: &str) -> bool {
        let named = self.only.as_ref().is_none_or(|only| only == service);
        let principal = self.caller.principal();
        named
            && (principal.scope().is_none()
                || ServiceId::parse(service).is_ok_and(|id| principal.allows_service(&id)))
    }
}

/// Sends the table, then every change, until the caller or the process ends.
async fn watch(
    feed: Feed,
    selection: Selection,
    outbound: mpsc::Sender<WatchItem>,
    shutdown: CancellationToken,
) {
    let mut tables = feed.subscribe();
    let mut sent_head = None;
    // Uids that a watched service has had, to select the removals of its routes.
    let mut uids = BTreeSet::new();
    loop {
        let newest = Arc::clone(&tables.borrow_and_update());
        let table = &newest.table;
        let change = match &sent_head {
            Some(cursor) if cursor == table.head() => None,
            Some(cursor) => Some(table.delta(cursor).unwrap_or_else(|| table.snapshot())),
            None => Some(table.snapshot()),
        };
        sent_head = Some(table.head().clone());
        drop(newest);
        for mut message in change
            .iter()
            .flat_map(|change| feed::watch_responses(change, |service| selection.has(service)))
        {
            if selection.is_partial() {
                uids.extend(message.routes.iter().map(|route| route.service_uid.clone()));
                message.removed.retain(|uid| uids.contains(uid));
                if !message.snapshot && message.routes.is_empty() && message.removed.is_empty() {
                    continue;
                }
            }
            let sent = tokio::time::timeout(STALL_LIMIT, outbound.send(Ok(message)));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
        drop(change);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let last = outbound.send(Err(status::shutting_down()));
                let _ = tokio::time::timeout(stream_routes::FINAL_SEND_TIMEOUT, last).await;
                return;
            }
            () = outbound.closed() => return,
            moved = tables.changed() => if moved.is_err() { return },
        }
    }
}
