//! Calls of `CatalogService`: services and versions.

use std::time::Duration;

use cless_proto::v1 as pb;

use super::{ApiClient, request_id, version_name};
use crate::error::{Error, Idempotency};
use crate::parse::VersionRef;

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
        let parent = format!("services/{service}");
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListVersionsRequest {
                parent: parent.clone(),
                page_size,
                page_token,
                ..Default::default()
            };
            let response = self
                .call(
                    Idempotency::ReadOnly,
                    format!("list the versions of {parent}"),
                    async || self.catalog.clone().list_versions(request.clone()).await,
                )
                .await?;
            Ok((response.versions, response.next_page_token))
        })
        .await
    }

    /// The number that a reference resolves to now.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the service has no such version.
    pub(crate) async fn resolve(&self, service: &str, reference: VersionRef) -> Result<i32, Error> {
        let index = match reference {
            VersionRef::Number(number) => return Ok(number),
            VersionRef::Latest => 0,
            VersionRef::Previous => 1,
        };
        let newest = self.list_versions(service, 2).await?;
        newest
            .get(index)
            .map(|version| version.number)
            .ok_or_else(|| Error::Conflict {
                message: match newest.len() {
                    0 => format!("{reference}: services/{service} has no version"),
                    _ => format!("{reference}: services/{service} has only one version"),
                },
                hint: format!("create one with `cless deploy {service} --image IMAGE`"),
            })
    }

    pub(crate) async fn verify_version(
        &self,
        service: &str,
        number: i32,
        timeout: Duration,
    ) -> Result<pb::Version, Error> {
        let request = pb::VerifyVersionRequest {
            name: version_name(service, number),
            timeout: prost_types::Duration::try_from(timeout).ok(),
            validate_only: false,
            ..Default::default()
        };
        self.call(
            Idempotency::Idempotent,
            format!("verify {}", request.name),
            async || self.catalog.clone().verify_version(request.clone()).await,
        )
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
