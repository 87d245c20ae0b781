//! Calls of `TrafficService`.

use cless_proto::v1 as pb;

use super::{ApiClient, request_id};
use crate::error::{Error, Idempotency};

impl ApiClient {
    pub(crate) async fn get_traffic(&self, service: &str) -> Result<pb::Traffic, Error> {
        let name = format!("services/{service}/traffic");
        self.call(Idempotency::ReadOnly, format!("get {name}"), async || {
            self.traffic
                .clone()
                .get_traffic(pb::GetTrafficRequest { name: name.clone() })
                .await
        })
        .await
    }

    /// Replaces the targets; a non-empty `etag` must match the current one.
    pub(crate) async fn update_traffic(
        &self,
        service: &str,
        targets: Vec<pb::TrafficTarget>,
        etag: String,
        reason: String,
        validate_only: bool,
    ) -> Result<pb::Traffic, Error> {
        let name = format!("services/{service}/traffic");
        let operation = format!("update {name}");
        let request = pb::UpdateTrafficRequest {
            traffic: Some(pb::Traffic {
                name,
                targets,
                etag,
                ..Default::default()
            }),
            actor: self.actor.clone(),
            reason,
            validate_only,
            request_id: request_id(),
            ..Default::default()
        };
        self.call(Idempotency::Idempotent, operation, async || {
            self.traffic.clone().update_traffic(request.clone()).await
        })
        .await
    }

    /// Newest first.
    pub(crate) async fn list_traffic_revisions(
        &self,
        service: &str,
        limit: u32,
    ) -> Result<Vec<pb::TrafficRevision>, Error> {
        let parent = format!("services/{service}/traffic");
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListTrafficRevisionsRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            let response = self
                .call(
                    Idempotency::ReadOnly,
                    format!("list the revisions of {parent}"),
                    async || {
                        self.traffic
                            .clone()
                            .list_traffic_revisions(request.clone())
                            .await
                    },
                )
                .await?;
            Ok((response.revisions, response.next_page_token))
        })
        .await
    }

    /// Restores a revision; 0 is the one before the current one.
    pub(crate) async fn rollback_traffic(
        &self,
        service: &str,
        revision: i32,
        etag: String,
        reason: String,
        validate_only: bool,
    ) -> Result<pb::Traffic, Error> {
        let request = pb::RollbackTrafficRequest {
            name: format!("services/{service}/traffic"),
            revision,
            actor: self.actor.clone(),
            reason,
            etag,
            validate_only,
            request_id: request_id(),
            ..Default::default()
        };
        self.call(
            Idempotency::Idempotent,
            format!("roll back {}", request.name),
            async || self.traffic.clone().rollback_traffic(request.clone()).await,
        )
        .await
    }
}
