//! Calls of `TokenService` and `AuditService` that manage access and show its history.

use std::time::Duration;

use cless_proto::v1 as pb;
use tonic::Streaming;

use super::{ApiClient, request_id};
use crate::error::{Error, Idempotency};

/// The entries of the audit log to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditSelection {
    /// Name of a service; empty: all resources.
    pub(crate) service: String,
    /// A principal; empty: all.
    pub(crate) principal: String,
    /// `None`: all times, and in a stream only new entries.
    pub(crate) since: Option<prost_types::Timestamp>,
}

impl ApiClient {
    /// Creates a token; without `ttl` it does not expire.
    pub(crate) async fn create_token(
        &self,
        token: pb::Token,
        ttl: Option<Duration>,
        validate_only: bool,
    ) -> Result<pb::CreateTokenResponse, Error> {
        let ttl = ttl.map(prost_types::Duration::try_from).transpose();
        let ttl = ttl.map_err(|_| Error::Usage {
            message: "--expires: too long".to_owned(),
            hint: None,
        })?;
        let request = pb::CreateTokenRequest {
            token: Some(token),
            ttl,
            request_id: request_id(),
            validate_only,
        };
        // A repeated request returns no secret, so the first answer must not be lost unnoticed.
        let operation = "create a token".to_owned();
        self.call(Idempotency::NotIdempotent, operation, async || {
            self.tokens.clone().create_token(request.clone()).await
        })
        .await
    }

    pub(crate) async fn list_tokens(
        &self,
        limit: u32,
        show_inactive: bool,
    ) -> Result<Vec<pb::Token>, Error> {
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListTokensRequest {
                page_size,
                page_token,
                show_inactive,
            };
            let operation = "list tokens".to_owned();
            let response = self
                .call(Idempotency::ReadOnly, operation, async || {
                    self.tokens.clone().list_tokens(request.clone()).await
                })
                .await?;
            Ok((response.tokens, response.next_page_token))
        })
        .await
    }

    pub(crate) async fn revoke_token(
        &self,
        name: &str,
        validate_only: bool,
    ) -> Result<pb::Token, Error> {
        let request = pb::RevokeTokenRequest {
            name: name.to_owned(),
            validate_only,
        };
        self.call(
            Idempotency::Idempotent,
            format!("revoke {name}"),
            async || self.tokens.clone().revoke_token(request.clone()).await,
        )
        .await
    }

    /// Entries of the audit log, the newest first; 0 reads all.
    pub(crate) async fn list_audit(
        &self,
        selection: &AuditSelection,
        limit: u32,
    ) -> Result<Vec<pb::AuditEntry>, Error> {
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListAuditEntriesRequest {
                page_size,
                page_token,
                service: selection.service.clone(),
                principal: selection.principal.clone(),
                start_time: selection.since,
            };
            let operation = "list the audit log".to_owned();
            let response = self
                .call(Idempotency::ReadOnly, operation, async || {
                    self.audit.clone().list_audit_entries(request.clone()).await
                })
                .await?;
            Ok((response.entries, response.next_page_token))
        })
        .await
    }

    /// Entries of the audit log as they are written.
    pub(crate) async fn watch_audit(
        &self,
        selection: &AuditSelection,
    ) -> Result<Streaming<pb::WatchAuditEntriesResponse>, Error> {
        let request = pb::WatchAuditEntriesRequest {
            service: selection.service.clone(),
            principal: selection.principal.clone(),
            start_time: selection.since,
        };
        let operation = WATCH.to_owned();
        self.call(Idempotency::ReadOnly, operation, async || {
            self.audit
                .clone()
                .watch_audit_entries(request.clone())
                .await
        })
        .await
    }
}

/// The operation in errors of the stream.
pub(crate) const WATCH: &str = "follow the audit log";
