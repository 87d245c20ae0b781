//! `CatalogService`: services and their versions.

use super::convert::{nodes, read_duration, requests, resources};
use super::{Api, caller, filter, now, page, parsed, state_word, status, validated};
use crate::domain::{
    FilterField, PullPolicy, Service, ServiceId, VerifyNodes, Version, VersionNumber, VersionSpec,
    Violations, name,
};
use crate::nodes::resolve::{self, Resolved};
use crate::store::{WriteOptions, Written};
use cless_proto::v1 as pb;
use cless_proto::v1::catalog_service_server::CatalogService;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Covers the pull of an ordinary image.
const VERIFY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
const VERIFY_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const VERIFY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const SERVICES: &str = "services";
const SERVICE_FILTER: [FilterField; 2] = [
    FilterField::Labels,
    FilterField::OneOf("state", &["NO_TRAFFIC", "SERVING", "DEGRADED"]),
];
/// UNSPECIFIED: a verification was never requested.
const VERSION_FILTER: [FilterField; 1] = [FilterField::OneOf(
    "verification.state",
    &["UNSPECIFIED", "PENDING", "VERIFIED", "FAILED", "UNVERIFIED"],
)];

#[tonic::async_trait]
impl CatalogService for Api {
    async fn create_service(
        &self,
        request: Request<pb::CreateServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let caller = caller(&request)?;
        let pb::CreateServiceRequest {
            service_id,
            service,
            request_id,
            validate_only,
        } = request.into_inner();
        let mut violations = Violations::new();
        let new = requests::new_service(service_id, service, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let (new, options) = validated(new.zip(options), violations)?;
        self.permit(&caller, &new.id)?;
        let written = self
            .store
            .create_service(new, options)
            .await
            .map_err(|error| self.refused_write(&caller, error))?;
        Ok(Response::new(self.with_state(&written.resource)))
    }

    async fn get_service(
        &self,
        request: Request<pb::GetServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let caller = caller(&request)?;
        let id = parsed("name", name::parse_service(&request.into_inner().name))?;
        self.permit(&caller, &id)?;
        let service = self.store.get_service(&id).await.map_err(status::store)?;
        Ok(Response::new(self.with_state(&service)))
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let filter = filter(&request.filter, &SERVICE_FILTER)?;
        let list = page::list(SERVICES, &request.filter);
        let after = page::parsed_key(&list, &request.page_token, |key| ServiceId::parse(key).ok())
            .map_err(status::invalid_page)?;
        let reporting = if filter.is_empty() {
            Vec::new()
        } else {
            self.nodes.all()
        };
        let health = nodes::ServiceHealth::new(&reporting, now());
        let everything = filter.is_empty() && caller.principal().scope().is_none();
        let matches = |service: &Service| {
            if !caller.principal().allows_service(&service.id) {
                return false;
            }
            let state = resources::service_state(&health.state(service));
            let labels = service.labels.as_map();
            filter.matches(|_state| state_word(state.as_str_name()), labels)
        };
        let (found, last) = page::filtered(
            size,
            after,
            everything,
            |service: &Service| service.id.clone(),
            |size, after| async move { self.store.list_services(size, after.as_ref()).await },
            matches,
        )
        .await
        .map_err(status::store)?;
        let next_page_token = page::continued(found.more, &list, last);
        let services = self.nodes.read(|registry| {
            let health = nodes::ServiceHealth::new(registry.nodes(), now());
            let shown = |service| resources::service(service, health.state(service));
            found.items.iter().map(shown).collect()
        });
        Ok(Response::new(pb::ListServicesResponse {
            services,
            next_page_token,
        }))
    }

    async fn update_service(
        &self,
        request: Request<pb::UpdateServiceRequest>,
    ) -> Result<Response<pb::Service>, Status> {
        let caller = caller(&request)?;
        let pb::UpdateServiceRequest {
            service,
            update_mask,
            validate_only,
            request_id,
        } = request.into_inner();
        let mut violations = Violations::new();
        let Some(service) = service else {
            return Err(status::missing("service", "send one with its name"));
        };
        let id = violations.take("service.name", name::parse_service(&service.name));
        let etag = service.etag.clone();
        let patch = requests::patch(service, update_mask, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((id, patch), options) = validated(id.zip(patch).zip(options), violations)?;
        self.permit(&caller, &id)?;
        let written = self
            .store
            .update_service(&id, requests::etag(&etag), patch, options)
            .await
            .map_err(|error| self.refused_write(&caller, error))?;
        Ok(Response::new(self.with_state(&written.resource)))
    }

    async fn delete_service(
        &self,
        request: Request<pb::DeleteServiceRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let pb::DeleteServiceRequest {
            name,
            etag,
            validate_only,
            request_id,
        } = request.into_inner();
        let mut violations = Violations::new();
        let id = violations.take("name", name::parse_service(&name));
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let (id, options) = validated(id.zip(options), violations)?;
        self.permit(&caller, &id)?;
        self.store
            .delete_service(&id, requests::etag(&etag), options)
            .await
            .map_err(status::store)?;
        Ok(Response::new(()))
    }

    async fn create_version(
        &self,
        request: Request<pb::CreateVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = caller(&request)?;
        let pb::CreateVersionRequest {
            parent,
            version,
            request_id,
            validate_only,
        } = request.into_inner();
        let mut violations = Violations::new();
        let service = violations.take("parent", name::parse_service(&parent));
        let spec = requests::new_version(version, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((service, spec), options) = validated(service.zip(spec).zip(options), violations)?;
        self.permit(&caller, &service)?;
        let written = self.create_resolved(&service, spec, options).await?;
        Ok(Response::new(self.with_status(&written.resource)))
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = caller(&request)?;
        let (service, number) = parsed("name", name::parse_version(&request.into_inner().name))?;
        self.permit(&caller, &service)?;
        let version = self
            .store
            .get_version(&service, number)
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.with_status(&version)))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let service = parsed("parent", name::parse_service(&request.parent))?;
        self.permit(&caller, &service)?;
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let filter = filter(&request.filter, &VERSION_FILTER)?;
        let list = page::list(&format!("versions of {service}"), &request.filter);
        let before = page::parsed_key(&list, &request.page_token, |key| {
            VersionNumber::new(key.parse().ok()?).ok()
        })
        .map_err(status::invalid_page)?;
        let matches = |version: &Version| {
            let run = version.verification.as_ref();
            let state = run.map_or(pb::verification::State::Unspecified, |run| {
                resources::verification_state(run.state())
            });
            filter.matches(|_state| state_word(state.as_str_name()), &BTreeMap::new())
        };
        let (found, last) = page::filtered(
            size,
            before,
            filter.is_empty(),
            |version: &Version| version.number,
            |size, before| self.store.list_versions(&service, size, before),
            matches,
        )
        .await
        .map_err(status::store)?;
        let next_page_token = page::continued(found.more, &list, last);
        let versions = found
            .items
            .iter()
            .map(|version| self.with_status(version))
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
        let caller = caller(&request)?;
        let pb::VerifyVersionRequest {
            name,
            timeout,
            validate_only,
            request_id,
            require,
            skip_nodes,
        } = request.into_inner();
        let mut violations = Violations::new();
        let parsed = violations.take("name", name::parse_version(&name));
        let timeout =
            read_duration("timeout", timeout, &mut violations).unwrap_or(VERIFY_TIMEOUT_DEFAULT);
        if !(VERIFY_TIMEOUT_MIN..=VERIFY_TIMEOUT_MAX).contains(&timeout) {
            violations.push(
                "timeout",
                format!("{timeout:?} is out of range: give 1 s to 1 h"),
            );
        }
        let asked = requests::verify_nodes(require, &skip_nodes, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((service, number), ((require, skipped), options)) =
            validated(parsed.zip(asked.zip(options)), violations)?;
        self.permit(&caller, &service)?;
        self.replicas.refresh().await.map_err(status::store)?;
        let known: BTreeSet<_> = self.nodes.read(|registry| {
            let names = registry.nodes().into_iter();
            names.map(|node| node.identity.name.clone()).collect()
        });
        let mut violations = Violations::new();
        for (at, node) in skipped.iter().enumerate() {
            if !known.contains(node) {
                let node = name::node(node);
                let reason = format!("`{node}` is unknown: `cless node list` has the names");
                violations.push(format!("skip_nodes[{at}]"), reason);
            }
        }
        validated(Some(()), violations)?;
        let skipped = BTreeSet::from_iter(skipped);
        let in_service = self.nodes.in_service();
        let chosen = in_service.iter().filter(|node| !skipped.contains(*node));
        let nodes: BTreeSet<_> = chosen.cloned().collect();
        if nodes.is_empty() {
            // NOT_FOUND takes precedence.
            self.store
                .get_version(&service, number)
                .await
                .map_err(status::store)?;
            return Err(if in_service.is_empty() {
                status::no_node_connected(name)
            } else {
                status::no_node_left(name)
            });
        }
        let asked = VerifyNodes {
            nodes,
            require,
            skipped,
        };
        let written = self
            .store
            .begin_verification(
                &service,
                number,
                Uuid::now_v7().to_string(),
                asked,
                options.now.plus(timeout),
                options,
            )
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.with_status(&written.resource)))
    }

    async fn cancel_verification(
        &self,
        request: Request<pb::CancelVerificationRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let (service, number) = parsed("name", name::parse_version(&request.name))?;
        self.permit(&caller, &service)?;
        let id = (!request.verification_id.is_empty()).then_some(request.verification_id);
        let options = WriteOptions {
            now: now(),
            validate_only: false,
            request_id: None,
            by: caller.origin,
        };
        let written = self
            .store
            .cancel_verification(&service, number, id, options)
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.with_status(&written.resource)))
    }

    async fn reset_version_image(
        &self,
        request: Request<pb::ResetVersionImageRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = caller(&request)?;
        let pb::ResetVersionImageRequest {
            name,
            etag,
            validate_only,
            request_id,
        } = request.into_inner();
        let mut violations = Violations::new();
        let version = violations.take("name", name::parse_version(&name));
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((service, number), options) = validated(version.zip(options), violations)?;
        self.permit(&caller, &service)?;
        let written = self
            .store
            .reset_version_image(&service, number, requests::etag(&etag), options)
            .await
            .map_err(status::store)?;
        Ok(Response::new(self.with_status(&written.resource)))
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let pb::DeleteVersionRequest {
            name,
            etag,
            validate_only,
            request_id,
        } = request.into_inner();
        let mut violations = Violations::new();
        let parsed = violations.take("name", name::parse_version(&name));
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((service, number), options) = validated(parsed.zip(options), violations)?;
        self.permit(&caller, &service)?;
        self.store
            .delete_version(&service, number, requests::etag(&etag), options)
            .await
            .map_err(status::store)?;
        Ok(Response::new(()))
    }
}

impl Api {
    /// Creates a version; a node resolves its image first, unless the reference has a digest.
    async fn create_resolved(
        &self,
        service: &ServiceId,
        spec: VersionSpec,
        options: WriteOptions,
    ) -> Result<Written<Version>, Status> {
        let mut resolution = None;
        let image = spec.image();
        if !image.has_digest() && !options.validate_only && resolve::is_possible(&self.nodes) {
            // A repeated request gets its first answer, and a missing service no question to a node.
            let dry = WriteOptions {
                validate_only: true,
                ..options.clone()
            };
            let tried = self
                .store
                .create_version(service, spec.clone(), None, dry)
                .await
                .map_err(status::store)?;
            if tried.replayed {
                return Ok(tried);
            }
            let local_only = spec.pull_policy() == PullPolicy::Never;
            resolution = match resolve::resolve(&self.nodes, image, local_only).await {
                Resolved::Found(resolution) => Some(resolution),
                Resolved::NoSuchImage(node, why) => {
                    return Err(status::image_not_found(image, &node, &why));
                }
                Resolved::Unknown => None,
            };
        }
        self.store
            .create_version(service, spec, resolution, options)
            .await
            .map_err(status::store)
    }

    /// A service with its state by the latest reports of the nodes.
    fn with_state(&self, service: &Service) -> pb::Service {
        self.nodes.read(|registry| {
            let health = nodes::ServiceHealth::new(registry.nodes(), now());
            resources::service(service, health.state(service))
        })
    }

    /// A version with the latest reports of the nodes about it.
    fn with_status(&self, version: &Version) -> pb::Version {
        let status = self
            .nodes
            .read(|registry| nodes::version_status(version, registry.nodes()));
        resources::version(version, Some(status))
    }
}
