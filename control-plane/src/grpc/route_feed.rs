//! `RouteFeedService`: the route table, to proxies and to people; and what proxies report.

use super::convert::{feed, nodes};
use super::stream_routes::{self, Responses};
use super::{Plane, page, read, status};
use crate::domain::{Uid, Violations, name};
use crate::feed::Feed;
use crate::feed::stream::{History as _, STALL_LIMIT};
use crate::nodes::Nodes;
use cless_proto::v1 as pb;
use cless_proto::v1::route_feed_service_server::RouteFeedService;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type Watched = Result<pb::WatchRoutesResponse, Status>;

#[tonic::async_trait]
impl RouteFeedService for Plane {
    type StreamRoutesStream = Responses;
    type WatchRoutesStream = ReceiverStream<Watched>;

    async fn stream_routes(
        &self,
        request: Request<Streaming<pb::StreamRoutesRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(Response::new(stream_routes::serve(
            request.into_inner(),
            &self.feed,
            &self.nodes,
            stream_routes::lifetime(&mut rand::rng()),
            self.shutdown.clone(),
        )))
    }

    async fn watch_routes(
        &self,
        request: Request<pb::WatchRoutesRequest>,
    ) -> Result<Response<ReceiverStream<Watched>>, Status> {
        let service = request.into_inner().service;
        let mut only = None;
        if !service.is_empty() {
            let mut wrong = Violations::new();
            let id = wrong.take("service", name::parse_service(&service));
            only = Some(read(id, wrong)?.to_string());
        }
        let (outbound, responses) = mpsc::channel(1);
        tokio::spawn(watch(
            self.feed.clone(),
            only,
            outbound,
            self.shutdown.clone(),
        ));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn report_node_status(
        &self,
        request: Request<pb::ReportNodeStatusRequest>,
    ) -> Result<Response<()>, Status> {
        report(&self.nodes, request.into_inner()).map(Response::new)
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
        let next_page_token = page::next(&found, RETAINED_IMAGES, |one| one.version.to_string());
        Ok(Response::new(pb::ListRetainedImagesResponse {
            images: found.items.iter().map(feed::retained_image).collect(),
            next_page_token,
            cluster: head.cluster,
        }))
    }
}

/// Takes in what a node says of itself.
pub(crate) fn report(nodes: &Nodes, report: pb::ReportNodeStatusRequest) -> Result<(), Status> {
    let mut wrong = Violations::new();
    let report = nodes::read_report(report, &mut wrong);
    let (identity, boot_id, report) = read(report, wrong)?;
    nodes
        .report(identity, boot_id, report)
        .map_err(|taken| status::name_taken(&taken))
}

/// What the tokens of this list are made for.
const RETAINED_IMAGES: &str = "retained images";

/// Sends the table, then each change, until somebody ends it.
async fn watch(
    feed: Feed,
    only: Option<String>,
    outbound: mpsc::Sender<Watched>,
    shutdown: CancellationToken,
) {
    let mut tables = feed.subscribe();
    let mut seen = None;
    // Of one service: its uid, so that the end of its route is shown and others' are not.
    let mut uids = BTreeSet::new();
    loop {
        let newest = Arc::clone(&tables.borrow_and_update());
        let table = &newest.table;
        let change = match &seen {
            Some(cursor) if cursor == table.head() => None,
            Some(cursor) => Some(table.delta(cursor).unwrap_or_else(|| table.snapshot())),
            None => Some(table.snapshot()),
        };
        seen = Some(table.head().clone());
        drop(newest);
        for mut shown in change
            .iter()
            .flat_map(|change| feed::watched(change, only.as_deref()))
        {
            if only.is_some() {
                uids.extend(shown.routes.iter().map(|route| route.service_uid.clone()));
                shown.removed.retain(|uid| uids.contains(uid));
                if !shown.snapshot && shown.routes.is_empty() && shown.removed.is_empty() {
                    continue;
                }
            }
            let sent = tokio::time::timeout(STALL_LIMIT, outbound.send(Ok(shown)));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
        drop(change);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let last = outbound.send(Err(status::shutting_down()));
                let _ = tokio::time::timeout(stream_routes::LAST_WORDS, last).await;
                return;
            }
            () = outbound.closed() => return,
            moved = tables.changed() => if moved.is_err() { return },
        }
    }
}
