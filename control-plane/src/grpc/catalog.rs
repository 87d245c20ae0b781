//! `CatalogService`: services and their versions.

use super::convert::{nodes, read_duration, requests, resources};
use super::{Plane, now, page, read, status};
use crate::domain::{ServiceId, Version, VersionNumber, Violations, name};
use crate::store::WriteOptions;
use cless_proto::v1 as pb;
use cless_proto::v1::catalog_service_server::CatalogService;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Covers the pull of an ordinary image.
const VERIFY_WITHIN: Duration = Duration::from_secs(120);
const VERIFY_LEAST: Duration = Duration::from_secs(1);
const VERIFY_MOST: Duration = Duration::from_secs(3600);
const SERVICES: &str = "services";

#[tonic::async_trait]
impl CatalogService for Plane {
    async fn create_service(
        &self,
        request: Request<pb::CreateServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let pb::CreateServiceRequest {
            service_id,
            service,
            request_id,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let new = requests::new_service(service_id, service, &mut wrong);
        let how = requests::write_options(now(), validate_only, request_id, &mut wrong);
        let (new, how) = read(new.zip(how), wrong)?;
        let written = self
            .store
            .create_service(new, how)
            .await
            .map_err(status::store)?;
        Ok(Response::new(resources::service(&written.resource)))
    }

    async fn get_service(
        &self,
        request: Request<pb::GetServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let mut wrong = Violations::new();
        let id = wrong.take("name", name::parse_service(&request.into_inner().name));
        let id = read(id, wrong)?;
        let service = self.store.get_service(&id).await.map_err(status::store)?;
        Ok(Response::new(resources::service(&service)))
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let after = page::parsed_key(SERVICES, &request.page_token, |key| {
            ServiceId::parse(key).ok()
        })
        .map_err(status::invalid_page)?;
        let found = self
            .store
            .list_services(size, after.as_ref())
            .await
            .map_err(status::store)?;
        let next_page_token = page::next(&found, SERVICES, |service| service.id.to_string());
        let services = found.items.iter().map(resources::service).collect();
        Ok(Response::new(pb::ListServicesResponse {
            services,
            next_page_token,
        }))
    }

    async fn update_service(
        &self,
        request: Request<pb::UpdateServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let pb::UpdateServiceRequest {
            service,
            update_mask,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let Some(service) = service else {
            return Err(status::missing("service", "send one with its name"));
        };
        let id = wrong.take("service.name", name::parse_service(&service.name));
        let etag = service.etag.clone();
        let patch = requests::patch(service, update_mask, &mut wrong);
        let (id, patch) = read(id.zip(patch), wrong)?;
        let how = WriteOptions {
            validate_only,
            ..WriteOptions::at(now())
        };
        let written = self
            .store
            .update_service(&id, requests::etag(&etag), patch, how)
            .await
            .map_err(status::store)?;
        Ok(Response::new(resources::service(&written.resource)))
    }

    async fn delete_service(
        &self,
        request: Request<pb::DeleteServiceRequest>,
    ) -> Result<Response<()>, Status> {
        let pb::DeleteServiceRequest {
            name,
            etag,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let id = wrong.take("name", name::parse_service(&name));
        let id = read(id, wrong)?;
        let how = WriteOptions {
            validate_only,
            ..WriteOptions::at(now())
        };
        self.store
            .delete_service(&id, requests::etag(&etag), how)
            .await
            .map_err(status::store)?;
        Ok(Response::new(()))
    }

    async fn create_version(
        &self,
        request: Request<pb::CreateVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let pb::CreateVersionRequest {
            parent,
            version,
            request_id,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let service = wrong.take("parent", name::parse_service(&parent));
        let spec = requests::new_version(version, &mut wrong);
        let how = requests::write_options(now(), validate_only, request_id, &mut wrong);
        let ((service, spec), how) = read(service.zip(spec).zip(how), wrong)?;
        let written = self
            .store
            .create_version(&service, spec, how)
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.shown(&written.resource)))
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let mut wrong = Violations::new();
        let name = wrong.take("name", name::parse_version(&request.into_inner().name));
        let (service, number) = read(name, wrong)?;
        let version = self
            .store
            .get_version(&service, number)
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.shown(&version)))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let mut wrong = Violations::new();
        let service = wrong.take("parent", name::parse_service(&request.parent));
        let service = read(service, wrong)?;
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let list = format!("versions of {service}");
        let before = page::parsed_key(&list, &request.page_token, |key| {
            VersionNumber::new(key.parse().ok()?).ok()
        })
        .map_err(status::invalid_page)?;
        let found = self
            .store
            .list_versions(&service, size, before)
            .await
            .map_err(status::store)?;
        let next_page_token = page::next(&found, &list, |version| version.number.to_string());
        let versions = found
            .items
            .iter()
            .map(|version| self.shown(version))
            .collect();
        Ok(Response::new(pb::ListVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    async fn verify_version(
        &self,
        request: Request<pb::VerifyVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let pb::VerifyVersionRequest {
            name,
            timeout,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let parsed = wrong.take("name", name::parse_version(&name));
        let within = read_duration("timeout", timeout, &mut wrong).unwrap_or(VERIFY_WITHIN);
        if !(VERIFY_LEAST..=VERIFY_MOST).contains(&within) {
            wrong.push(
                "timeout",
                format!("{within:?} is out of range: give 1 s to 1 h"),
            );
        }
        let (service, number) = read(parsed, wrong)?;
        self.replicas.refresh().await.map_err(status::store)?;
        let asked: BTreeSet<_> = self.nodes.connected().into_iter().collect();
        if asked.is_empty() {
            // What is missing altogether is said first.
            self.store
                .get_version(&service, number)
                .await
                .map_err(status::store)?;
            return Err(status::no_node_connected(name));
        }
        let now = now();
        let how = WriteOptions {
            validate_only,
            ..WriteOptions::at(now)
        };
        let written = self
            .store
            .begin_verification(
                &service,
                number,
                Uuid::now_v7().to_string(),
                asked,
                now.plus(within),
                how,
            )
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.shown(&written.resource)))
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let pb::DeleteVersionRequest {
            name,
            etag,
            validate_only,
        } = request.into_inner();
        let mut wrong = Violations::new();
        let parsed = wrong.take("name", name::parse_version(&name));
        let (service, number) = read(parsed, wrong)?;
        let how = WriteOptions {
            validate_only,
            ..WriteOptions::at(now())
        };
        self.store
            .delete_version(&service, number, requests::etag(&etag), how)
            .await
            .map_err(status::store)?;
        Ok(Response::new(()))
    }
}

impl Plane {
    /// A version with what the nodes last saw of it.
    fn shown(&self, version: &Version) -> pb::Version {
        let seen = self
            .nodes
            .read(|registry| nodes::version_status(version, registry.nodes()));
        resources::version(version, Some(seen))
    }
}
