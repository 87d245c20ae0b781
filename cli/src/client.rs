//! Calls of the control plane: one connection, one time limit, one rule for repeats.
//!
//! Every call ends within [`CALL`]. A call whose repeat does no harm is repeated when the control
//! plane is unavailable for a moment (it restarts, say); a write is repeatable because it carries a
//! fresh `request_id` (AIP-155). Lists are read to their end, page by page.

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::catalog_service_client::CatalogServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::traffic_service_client::TrafficServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::error::{Effect, Error};
use crate::parse::VersionRef;

/// For the TCP connection and the HTTP/2 handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// For one call: well above any write, which is a few milliseconds.
const CALL: Duration = Duration::from_secs(30);
/// Waits before each repeat of a call that met an unavailable server.
const REPEATS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// Lists are read in pages of this many.
const PAGE: i32 = 200;
/// A page of versions with large environments may pass tonic's default of 4 MiB.
const ANSWER_BYTES: usize = 64 << 20;

/// A connection to the control plane, and who is using it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    catalog: CatalogServiceClient<Channel>,
    traffic: TrafficServiceClient<Channel>,
    nodes: NodeServiceClient<Channel>,
    actor: String,
}

/// A new `request_id`.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The name of a version.
pub(crate) fn version_name(service: &str, number: i32) -> String {
    format!("services/{service}/versions/{number}")
}

impl Client {
    /// Connects to `server` (`http://host:port`, the scheme may be left out).
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no such address, [`Error::Connect`] if nothing answers.
    pub(crate) async fn connect(server: &str, actor: String) -> Result<Self, Error> {
        let address = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let usage = |message: String| Error::Usage {
            message,
            hint: Some("write it as http://127.0.0.1:7070".to_owned()),
        };
        if !address.starts_with("http://") {
            return Err(usage(format!(
                "--server: `{server}` does not start with http://"
            )));
        }
        let endpoint = Endpoint::from_shared(address)
            .map_err(|_| usage(format!("--server: `{server}` is not an address")))?
            .connect_timeout(CONNECT)
            .user_agent(concat!("cless/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| usage(format!("--server: {error}")))?;
        let refused = |reason: String| Error::Connect {
            server: server.to_owned(),
            reason,
        };
        let channel = tokio::time::timeout(CONNECT, endpoint.connect())
            .await
            .map_err(|_| refused(format!("it did not answer within {} s", CONNECT.as_secs())))?
            .map_err(|error| refused(root_cause(&error)))?;
        Ok(Self {
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES),
            traffic: TrafficServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES),
            nodes: NodeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES),
            actor,
        })
    }

    async fn call<T>(
        &self,
        effect: Effect,
        doing: String,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut repeats = REPEATS.into_iter();
        loop {
            let status = match tokio::time::timeout(CALL, send()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer in {} s", CALL.as_secs())),
            };
            match repeats.next() {
                Some(wait) if status.code() == Code::Unavailable && effect != Effect::Once => {
                    tokio::time::sleep(wait).await;
                }
                _ => {
                    return Err(Error::Api {
                        doing,
                        effect,
                        status: Box::new(status),
                    });
                }
            }
        }
    }

    /// Reads pages until `limit` items (0: all) or the last page.
    async fn pages<T>(
        &self,
        limit: u32,
        page: impl AsyncFn(i32, String) -> Result<(Vec<T>, String), Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items: Vec<T> = Vec::new();
        let mut token = String::new();
        loop {
            let left = if limit == 0 {
                usize::MAX
            } else {
                limit as usize - items.len()
            };
            let size = i32::try_from(left).map_or(PAGE, |left| left.min(PAGE));
            let (more, next) = page(size, token).await?;
            items.extend(more);
            if next.is_empty() || (limit > 0 && items.len() >= limit as usize) {
                return Ok(items);
            }
            token = next;
        }
    }

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
            Effect::Repeatable,
            format!("create services/{id}"),
            async || self.catalog.clone().create_service(request.clone()).await,
        )
        .await
    }

    pub(crate) async fn get_service(&self, id: &str) -> Result<pb::Service, Error> {
        let name = format!("services/{id}");
        self.call(Effect::Read, format!("get {name}"), async || {
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
            };
            let answer = self
                .call(Effect::Read, "list services".to_owned(), async || {
                    self.catalog.clone().list_services(request.clone()).await
                })
                .await?;
            Ok((answer.services, answer.next_page_token))
        })
        .await
    }

    /// Sets the fields of `service` that `mask` names.
    pub(crate) async fn update_service(
        &self,
        service: pb::Service,
        mask: Vec<String>,
        validate_only: bool,
    ) -> Result<pb::Service, Error> {
        let doing = format!("update {}", service.name);
        // With an etag a repeat is refused: the first one changed it.
        let effect = if service.etag.is_empty() {
            Effect::Repeatable
        } else {
            Effect::Once
        };
        let request = pb::UpdateServiceRequest {
            service: Some(service),
            update_mask: Some(prost_types::FieldMask { paths: mask }),
            validate_only,
        };
        self.call(effect, doing, async || {
            self.catalog.clone().update_service(request.clone()).await
        })
        .await
    }

    pub(crate) async fn delete_service(&self, id: &str, etag: String) -> Result<(), Error> {
        let request = pb::DeleteServiceRequest {
            name: format!("services/{id}"),
            etag,
            validate_only: false,
        };
        self.call(
            Effect::Once,
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
        let doing = format!("create a version of services/{service}");
        self.call(Effect::Repeatable, doing, async || {
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
        self.call(Effect::Read, format!("get {name}"), async || {
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
            };
            let answer = self
                .call(
                    Effect::Read,
                    format!("list the versions of {parent}"),
                    async || self.catalog.clone().list_versions(request.clone()).await,
                )
                .await?;
            Ok((answer.versions, answer.next_page_token))
        })
        .await
    }

    /// The number a reference means now.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the service has too few versions for it.
    pub(crate) async fn resolve(&self, service: &str, which: VersionRef) -> Result<i32, Error> {
        let index = match which {
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
                    0 => format!("{which}: services/{service} has no version"),
                    _ => format!("{which}: services/{service} has only one version"),
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
        };
        self.call(
            Effect::Repeatable,
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
        };
        self.call(
            Effect::Once,
            format!("delete {}", request.name),
            async || self.catalog.clone().delete_version(request.clone()).await,
        )
        .await
    }

    pub(crate) async fn get_traffic(&self, service: &str) -> Result<pb::Traffic, Error> {
        let name = format!("services/{service}/traffic");
        self.call(Effect::Read, format!("get {name}"), async || {
            self.traffic
                .clone()
                .get_traffic(pb::GetTrafficRequest { name: name.clone() })
                .await
        })
        .await
    }

    /// Replaces the targets; `etag` guards against a change in between, if not empty.
    pub(crate) async fn update_traffic(
        &self,
        service: &str,
        targets: Vec<pb::TrafficTarget>,
        etag: String,
        reason: String,
        validate_only: bool,
    ) -> Result<pb::Traffic, Error> {
        let name = format!("services/{service}/traffic");
        let doing = format!("update {name}");
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
        };
        self.call(Effect::Repeatable, doing, async || {
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
            let answer = self
                .call(
                    Effect::Read,
                    format!("list the revisions of {parent}"),
                    async || {
                        self.traffic
                            .clone()
                            .list_traffic_revisions(request.clone())
                            .await
                    },
                )
                .await?;
            Ok((answer.revisions, answer.next_page_token))
        })
        .await
    }

    /// Copies an older revision; 0: the one before the one in force.
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
        };
        self.call(
            Effect::Repeatable,
            format!("roll back {}", request.name),
            async || self.traffic.clone().rollback_traffic(request.clone()).await,
        )
        .await
    }

    pub(crate) async fn list_nodes(&self, limit: u32) -> Result<Vec<pb::Node>, Error> {
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListNodesRequest {
                page_size,
                page_token,
            };
            let answer = self
                .call(Effect::Read, "list nodes".to_owned(), async || {
                    self.nodes.clone().list_nodes(request.clone()).await
                })
                .await?;
            Ok((answer.nodes, answer.next_page_token))
        })
        .await
    }

    pub(crate) async fn get_node(&self, id: &str) -> Result<pb::Node, Error> {
        let name = format!("nodes/{id}");
        self.call(Effect::Read, format!("get {name}"), async || {
            self.nodes
                .clone()
                .get_node(pb::GetNodeRequest { name: name.clone() })
                .await
        })
        .await
    }

    /// Instances on `node` (`-`: all nodes) of `service` (empty: all services).
    pub(crate) async fn list_instances(
        &self,
        node: &str,
        service: &str,
        limit: u32,
    ) -> Result<Vec<pb::Instance>, Error> {
        let parent = format!("nodes/{node}");
        let service = if service.is_empty() {
            String::new()
        } else {
            format!("services/{service}")
        };
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListInstancesRequest {
                parent: parent.clone(),
                page_size,
                page_token,
                service: service.clone(),
            };
            let answer = self
                .call(Effect::Read, "list instances".to_owned(), async || {
                    self.nodes.clone().list_instances(request.clone()).await
                })
                .await?;
            Ok((answer.instances, answer.next_page_token))
        })
        .await
    }

    /// How many connected nodes have applied a feed revision.
    pub(crate) async fn check_propagation(
        &self,
        revision: i64,
    ) -> Result<pb::CheckPropagationResponse, Error> {
        let request = pb::CheckPropagationRequest { revision };
        self.call(
            Effect::Read,
            "ask which nodes follow".to_owned(),
            async || self.nodes.clone().check_propagation(request).await,
        )
        .await
    }
}

/// The innermost cause: `transport error` says nothing, `Connection refused` does.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
