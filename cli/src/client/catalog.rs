//! Calls of `CatalogService`: services and versions.

use std::sync::PoisonError;
use std::time::Duration;

use cless_proto::v1 as pb;

use super::{ApiClient, PAGE_SIZE, request_id, version_name};
use crate::error::{Error, Idempotency};

/// The conditions of a verification.
#[derive(Debug, Clone)]
pub(crate) struct VerificationTerms {
    pub(crate) timeout: Duration,
    pub(crate) require: pb::verification::Require,
    /// `nodes/NODE` of nodes that do not take part.
    pub(crate) skip_nodes: Vec<String>,
}

impl ApiClient {
    pub(crate) async fn create_service(
        &self,
        id: &str,
        service: pb::Service,
        validate_only: bool,
    ) -> Result<pb::Service, Error> {
        let request = pb::CreateServiceRequest {
            service_id: id.to_owned(),
            service: Some(service),
            request_id: request_id(),
            validate_only,
        };
        self.call(
            Idempotency::Idempotent,
            format!("create services/{id}"),
            async || self.catalog.clone().create_service(request.clone()).await,
        )
        .await
    }

    pub(crate) async fn get_service(&self, id: &str) -> Result<pb::Service, Error> {
        let name = format!("services/{id}");
        self.call(Idempotency::ReadOnly, format!("get {name}"), async || {
            self.catalog
                .clone()
                .get_service(pb::GetServiceRequest { name: name.clone() })
                .await
        })
        .await
    }

    pub(crate) async fn list_services(&self, limit: u32) -> Result<Vec<pb::Service>, Error> {
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListServicesRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let response = self
                .call(
                    Idempotency::ReadOnly,
                    "list services".to_owned(),
                    async || self.catalog.clone().list_services(request.clone()).await,
                )
                .await?;
            Ok((response.services, response.next_page_token))
        })
        .await
    }

    /// Sets the fields of `service` that `mask` lists.
    pub(crate) async fn update_service(
        &self,
        service: pb::Service,
        mask: Vec<String>,
        validate_only: bool,
    ) -> Result<pb::Service, Error> {
        let operation = format!("update {}", service.name);
        // The first attempt changes the etag, so a retry with the old one fails.
        let idempotency = if service.etag.is_empty() {
            Idempotency::Idempotent
        } else {
            Idempotency::NotIdempotent
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            update_mask: Some(prost_types::FieldMask { paths: mask }),
            validate_only,
            ..Default::default()
        };
        self.call(idempotency, operation, async || {
            self.catalog.clone().update_service(request.clone()).await
        })
        .await
    }

    pub(crate) async fn delete_service(&self, id: &str, etag: String) -> Result<(), Error> {
        let request = pb::DeleteServiceRequest {
            name: format!("services/{id}"),
            etag,
            validate_only: false,
            ..Default::default()
        };
        self.call(
            Idempotency::NotIdempotent,
            format!("delete {}", request.name),
            async || self.catalog.clone().delete_service(request.clone()).await,
        )
        .await
    }

    pub(crate) async fn create_version(
        &self,
        service: &str,
        spec: pb::VersionSpec,
        validate_only: bool,
    ) -> Result<pb::Version, Error> {
        let request = pb::CreateVersionRequest {
            parent: format!("services/{service}"),
            version: Some(pb::Version {
                spec: Some(spec),
                ..Default::default()
            }),
            request_id: request_id(),
            validate_only,
        };
        let operation = format!("create a version of services/{service}");
        self.call(Idempotency::Idempotent, operation, async || {
            self.catalog.clone().create_version(request.clone()).await
        })
        .await
    }

    pub(crate) async fn get_version(
        &self,
        service: &str,
        number: i32,
    ) -> Result<pb::Version, Error> {
        let name = version_name(service, number);
        self.call(Idempotency::ReadOnly, format!("get {name}"), async || {
            self.catalog
                .clone()
                .get_version(pb::GetVersionRequest { name: name.clone() })
                .await
        })
        .await
    }

    /// Newest first.
    pub(crate) async fn list_versions(
        &self,
        service: &str,
        limit: u32,
    ) -> Result<Vec<pb::Version>, Error> {
        self.pages(limit, async |page_size, page_token| {
            self.page_of_versions(service, "", page_size, page_token)
                .await
        })
        .await
    }

    /// The newest verified version; `None` if there is none.
    pub(crate) async fn newest_verified(&self, service: &str) -> Result<Option<i32>, Error> {
        const FILTER: &str = "verification.state = VERIFIED";
        let verified = |version: &&pb::Version| {
            let verification = version.verification.as_ref();
            verification.is_some_and(|v| v.state() == pb::verification::State::Verified)
        };
        let mut token = String::new();
        loop {
            let page = self.page_of_versions(service, FILTER, PAGE_SIZE, token);
            let (versions, next) = page.await?;
            // A control plane of an earlier release ignores the filter.
            if let Some(version) = versions.iter().find(verified) {
                return Ok(Some(version.number));
            }
            if next.is_empty() {
                return Ok(None);
            }
            token = next;
        }
    }

    async fn page_of_versions(
        &self,
        service: &str,
        filter: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<pb::Version>, String), Error> {
        let request = pb::ListVersionsRequest {
            parent: format!("services/{service}"),
            page_size,
            page_token,
            filter: filter.to_owned(),
        };
        let operation = format!("list the versions of {}", request.parent);
        let response = self.call(Idempotency::ReadOnly, operation, async || {
            self.catalog.clone().list_versions(request.clone()).await
        });
        let response = response.await?;
        Ok((response.versions, response.next_page_token))
    }

    /// Begins a verification, which [`ApiClient::abandon`] ends until [`ApiClient::concluded`].
    pub(crate) async fn verify_version(
        &self,
        service: &str,
        number: i32,
        terms: &VerificationTerms,
    ) -> Result<pb::Version, Error> {
        let request = pb::VerifyVersionRequest {
            name: version_name(service, number),
            timeout: prost_types::Duration::try_from(terms.timeout).ok(),
            validate_only: false,
            request_id: request_id(),
            require: terms.require.into(),
            skip_nodes: terms.skip_nodes.clone(),
        };
        // Before the call, because an interrupted call may have begun the verification.
        self.set_pending(Some(pb::CancelVerificationRequest {
            name: request.name.clone(),
            verification_id: String::new(),
        }));
        let operation = format!("verify {}", request.name);
        let result = self
            .call(Idempotency::Idempotent, operation, async || {
                self.catalog.clone().verify_version(request.clone()).await
            })
            .await;
        match &result {
            Ok(version) => self.set_pending(Some(pb::CancelVerificationRequest {
                name: request.name,
                verification_id: version
                    .verification
                    .as_ref()
                    .map_or_else(String::new, |v| v.id.clone()),
            })),
            Err(_) => self.concluded(),
        }
        result
    }

    /// Records that the verification begun last needs no end by [`ApiClient::abandon`].
    pub(crate) fn concluded(&self) {
        self.set_pending(None);
    }

    fn set_pending(&self, pending: Option<pb::CancelVerificationRequest>) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = pending;
    }

    /// Ends the verification that this client began and that is pending. Returns the name of its
    /// version and the result, or `None` if there is none.
    pub(crate) async fn abandon(&self) -> Option<(String, Result<(), Error>)> {
        let pending = self.pending.lock();
        let request = pending.unwrap_or_else(PoisonError::into_inner).take()?;
        let operation = format!("cancel the verification of {}", request.name);
        let result = self
            .call(Idempotency::Idempotent, operation, async || {
                let mut catalog = self.catalog.clone();
                catalog.cancel_verification(request.clone()).await
            })
            .await;
        Some((request.name, result.map(drop)))
    }

    pub(crate) async fn reset_version_image(
        &self,
        service: &str,
        number: i32,
        etag: String,
        validate_only: bool,
    ) -> Result<pb::Version, Error> {
        let request = pb::ResetVersionImageRequest {
            name: version_name(service, number),
            etag,
            validate_only,
            request_id: request_id(),
        };
        let operation = format!("reset the image of {}", request.name);
        self.call(Idempotency::Idempotent, operation, async || {
            let mut catalog = self.catalog.clone();
            catalog.reset_version_image(request.clone()).await
        })
        .await
    }

    pub(crate) async fn delete_version(
        &self,
        service: &str,
        number: i32,
        etag: String,
    ) -> Result<(), Error> {
        let request = pb::DeleteVersionRequest {
            name: version_name(service, number),
            etag,
            validate_only: false,
            ..Default::default()
        };
        self.call(
            Idempotency::NotIdempotent,
            format!("delete {}", request.name),
            async || self.catalog.clone().delete_version(request.clone()).await,
        )
        .await
    }
}
