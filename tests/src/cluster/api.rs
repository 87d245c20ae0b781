//! Calls of the control plane's API with the defaults of tests.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cless_proto::v1;
use cless_proto::v1::catalog_service_client::CatalogServiceClient;
use cless_proto::v1::node_service_client::NodeServiceClient;
use cless_proto::v1::route_feed_service_client::RouteFeedServiceClient;
use cless_proto::v1::traffic_service_client::TrafficServiceClient;

use crate::access::Channel;

/// Settings of test services: the defaults, except an idle timeout of ten minutes, which keeps the
/// reaper out of tests about other subjects.
pub fn settings() -> v1::ServiceSettings {
    v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(600)),
        ..Default::default()
    }
}

/// A protobuf duration.
pub fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// The four services of the control plane.
#[derive(Clone, Debug)]
pub struct Api {
    /// Services and versions.
    pub catalog: CatalogServiceClient<Channel>,
    /// Traffic splits and their history.
    pub traffic: TrafficServiceClient<Channel>,
    /// Nodes and instances.
    pub nodes: NodeServiceClient<Channel>,
    /// The route feed.
    pub feed: RouteFeedServiceClient<Channel>,
}

impl Api {
    /// Calls over a channel to the control plane.
    pub fn new(channel: Channel) -> Self {
        Self {
            catalog: CatalogServiceClient::new(channel.clone()),
            traffic: TrafficServiceClient::new(channel.clone()),
            nodes: NodeServiceClient::new(channel.clone()),
            feed: RouteFeedServiceClient::new(channel),
        }
    }

    /// Reads the cluster id from the feed.
    pub async fn cluster_id(&mut self) -> Result<String> {
        let request = v1::WatchRoutesRequest {
            service: String::new(),
        };
        let mut stream = self.feed.watch_routes(request).await?.into_inner();
        Ok(stream
            .message()
            .await?
            .context("the feed ended before its first message")?
            .cluster)
    }

    /// Creates a token with which the node of this name joins.
    pub async fn create_join_token(&mut self, node: &str) -> Result<String> {
        let request = v1::CreateJoinTokenRequest {
            node_id: node.to_owned(),
            validate_only: false,
        };
        let created = self.nodes.create_join_token(request).await?;
        Ok(created.into_inner().join_token)
    }

    /// Creates a service.
    pub async fn create_service(
        &mut self,
        service: &str,
        settings: v1::ServiceSettings,
    ) -> Result<v1::Service> {
        let request = v1::CreateServiceRequest {
            service_id: service.to_owned(),
            service: Some(v1::Service {
                settings: Some(settings),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(self.catalog.create_service(request).await?.into_inner())
    }

    /// Deletes a service.
    pub async fn delete_service(&mut self, service: &str) -> Result<()> {
        let name = format!("services/{service}");
        let request = v1::DeleteServiceRequest {
            name,
            ..Default::default()
        };
        self.catalog.delete_service(request).await?;
        Ok(())
    }

    /// Creates a version from an image and environment variables.
    pub async fn create_version(
        &mut self,
        service: &str,
        image: &str,
        env: &[(&str, &str)],
    ) -> Result<v1::Version> {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let spec = v1::VersionSpec {
            image: image.to_owned(),
            env,
            ..Default::default()
        };
        self.create_version_of(service, spec).await
    }

    /// Creates a version from a full specification.
    pub async fn create_version_of(
        &mut self,
        service: &str,
        spec: v1::VersionSpec,
    ) -> Result<v1::Version> {
        let request = v1::CreateVersionRequest {
            parent: format!("services/{service}"),
            version: Some(v1::Version {
                spec: Some(spec),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(self.catalog.create_version(request).await?.into_inner())
    }

    /// Gets a version.
    pub async fn version(&mut self, service: &str, number: i32) -> Result<v1::Version> {
        let name = format!("services/{service}/versions/{number}");
        Ok(self
            .catalog
            .get_version(v1::GetVersionRequest { name })
            .await?
            .into_inner())
    }

    /// Clears what a version's image was resolved to.
    pub async fn reset_image(&mut self, service: &str, number: i32) -> Result<v1::Version> {
        let request = v1::ResetVersionImageRequest {
            name: format!("services/{service}/versions/{number}"),
            ..Default::default()
        };
        Ok(self
            .catalog
            .reset_version_image(request)
            .await?
            .into_inner())
    }

    /// Sets the traffic split; does not wait for the nodes.
    pub async fn set_traffic(
        &mut self,
        service: &str,
        split: &[(i32, u32)],
    ) -> Result<v1::Traffic> {
        let targets = split
            .iter()
            .map(|&(version, percent)| v1::TrafficTarget {
                version,
                percent,
                tag: String::new(),
            })
            .collect();
        self.set_targets(service, targets).await
    }

    /// Sets the traffic targets, also to versions that no node has verified; does not wait for the
    /// nodes.
    pub async fn set_targets(
        &mut self,
        service: &str,
        targets: Vec<v1::TrafficTarget>,
    ) -> Result<v1::Traffic> {
        let name = format!("services/{service}/traffic");
        let request = v1::UpdateTrafficRequest {
            traffic: Some(v1::Traffic {
                name,
                targets,
                ..Default::default()
            }),
            actor: "tests".to_owned(),
            allow_unverified: true,
            ..Default::default()
        };
        Ok(self.traffic.update_traffic(request).await?.into_inner())
    }

    /// Gets the number of nodes that have applied a feed revision; 0 means the newest.
    pub async fn check_propagation(
        &mut self,
        revision: i64,
    ) -> Result<v1::CheckPropagationResponse> {
        let request = v1::CheckPropagationRequest { revision };
        Ok(self.nodes.check_propagation(request).await?.into_inner())
    }

    /// Lists the reported instances of a service.
    pub async fn instances(&mut self, service: &str) -> Result<Vec<v1::Instance>> {
        let request = v1::ListInstancesRequest {
            parent: "nodes/-".to_owned(),
            service: format!("services/{service}"),
            ..Default::default()
        };
        Ok(self
            .nodes
            .list_instances(request)
            .await?
            .into_inner()
            .instances)
    }

    /// Gets a node.
    pub async fn node(&mut self, node: &str) -> Result<v1::Node> {
        let request = v1::GetNodeRequest {
            name: format!("nodes/{node}"),
        };
        Ok(self.nodes.get_node(request).await?.into_inner())
    }
}
