//! `AuditService`: the audit log, as pages and as a stream.

use std::time::Duration;

use super::convert::trust;
use super::stream_routes::FINAL_SEND_TIMEOUT;
use super::{Api, page, status};
use crate::feed::stream::STALL_LIMIT;
use crate::store::{AuditQuery, Store};
use cless_proto::v1 as pb;
use cless_proto::v1::audit_service_server::AuditService;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Entries per query of a stream.
const BATCH: u32 = 200;
/// Delay of an entry that another control plane writes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

type WatchItem = Result<pb::WatchAuditEntriesResponse, Status>;

#[tonic::async_trait]
impl AuditService for Api {
    type WatchAuditEntriesStream = ReceiverStream<WatchItem>;

    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let list = format!(
            "audit entries of {} by {} since {:?}",
            request.service, request.principal, request.start_time
        );
        let query = trust::audit_query(&request.service, request.principal, request.start_time)?;
        let before = page::parsed_key(&list, &request.page_token, |key| key.parse().ok())
            .map_err(status::invalid_page)?;
        let found = self
            .store
            .list_audit(&query, size, before)
            .await
            .map_err(status::store)?;
        let next_page_token = page::next_token(&found, &list, |entry| entry.id.to_string());
        Ok(Response::new(pb::ListAuditEntriesResponse {
            entries: found.items.into_iter().map(trust::audit_entry).collect(),
            next_page_token,
        }))
    }

    async fn watch_audit_entries(
        &self,
        request: Request<pb::WatchAuditEntriesRequest>,
    ) -> Result<Response<Self::WatchAuditEntriesStream>, Status> {
        let request = request.into_inner();
        let query = trust::audit_query(&request.service, request.principal, request.start_time)?;
        // Before the first read, so that no entry is missed.
        let news = self.store.watch_audit();
        let after = if query.since.is_some() {
            0
        } else {
            self.store.newest_audit().await.map_err(status::store)?
        };
        let (outbound, responses) = mpsc::channel(1);
        let watch = Watch {
            store: self.store.clone(),
            query,
            after,
            news,
        };
        tokio::spawn(watch.run(outbound, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

struct Watch {
    store: Store,
    query: AuditQuery,
    /// The id of the last entry that was read.
    after: i64,
    news: watch::Receiver<u64>,
}

impl Watch {
    /// Sends entries until the caller or the process ends.
    async fn run(mut self, outbound: mpsc::Sender<WatchItem>, shutdown: CancellationToken) {
        loop {
            self.news.borrow_and_update();
            let entries = match self.store.audit_after(&self.query, BATCH, self.after).await {
                Ok(entries) => entries,
                Err(error) => {
                    let last = outbound.send(Err(status::store(error)));
                    let _ = tokio::time::timeout(FINAL_SEND_TIMEOUT, last).await;
                    return;
                }
            };
            let more = entries.len() >= BATCH as usize;
            for entry in entries {
                self.after = entry.id;
                let entry = Some(trust::audit_entry(entry));
                let message = pb::WatchAuditEntriesResponse { entry };
                let sent = tokio::time::timeout(STALL_LIMIT, outbound.send(Ok(message)));
                if !matches!(sent.await, Ok(Ok(()))) {
                    return;
                }
            }
            if more {
                continue;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    let last = outbound.send(Err(status::shutting_down()));
                    let _ = tokio::time::timeout(FINAL_SEND_TIMEOUT, last).await;
                    return;
                }
                () = outbound.closed() => return,
                _ = tokio::time::timeout(POLL_INTERVAL, self.news.changed()) => {}
            }
        }
    }
}
