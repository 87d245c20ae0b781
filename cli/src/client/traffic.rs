//! Calls of `TrafficService`.

use cless_proto::v1 as pb;

use super::{ApiClient, request_id};
use crate::error::{Error, Idempotency};

/// The destination of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RollbackTo {
    /// The traffic that was in force before.
    Before,
    /// The traffic revision of this number.
    Revision(i32),
    /// All traffic to the version of this number.
    Version(i32),
}

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
        allow_unverified: bool,
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
            allow_unverified,
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

    /// Goes back to earlier traffic.
    pub(crate) async fn rollback_traffic(
        &self,
        service: &str,
        to: RollbackTo,
        etag: String,
        reason: String,
        validate_only: bool,
    ) -> Result<pb::Traffic, Error> {
        let (revision, version) = match to {
            RollbackTo::Before => (0, 0),
            RollbackTo::Revision(revision) => (revision, 0),
            RollbackTo::Version(version) => (0, version),
        };
        let request = pb::RollbackTrafficRequest {
            name: format!("services/{service}/traffic"),
            revision,
            version,
            actor: self.actor.clone(),
            reason,
            etag,
            validate_only,
            request_id: request_id(),
        };
        self.call(
            Idempotency::Idempotent,
            format!("roll back {}", request.name),
            async || self.traffic.clone().rollback_traffic(request.clone()).await,
        )
        .await
    }
}
