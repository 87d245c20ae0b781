//! Calls of `NodeService`.

use cless_proto::v1 as pb;

use super::ApiClient;
use crate::error::{Error, Idempotency};

impl ApiClient {
    pub(crate) async fn list_nodes(&self, limit: u32) -> Result<Vec<pb::Node>, Error> {
        self.pages(limit, async |page_size, page_token| {
            let request = pb::ListNodesRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let response = self
                .call(Idempotency::ReadOnly, "list nodes".to_owned(), async || {
                    self.nodes.clone().list_nodes(request.clone()).await
                })
                .await?;
            Ok((response.nodes, response.next_page_token))
        })
        .await
    }

    pub(crate) async fn get_node(&self, id: &str) -> Result<pb::Node, Error> {
        let name = format!("nodes/{id}");
        self.call(Idempotency::ReadOnly, format!("get {name}"), async || {
            self.nodes
                .clone()
                .get_node(pb::GetNodeRequest { name: name.clone() })
                .await
        })
        .await
    }

    /// Creates a token with which a node joins; `node` empty: with any name.
    pub(crate) async fn create_join_token(
        &self,
        node: String,
    ) -> Result<pb::CreateJoinTokenResponse, Error> {
        let request = pb::CreateJoinTokenRequest {
            node_id: node,
            validate_only: false,
        };
        // A repetition creates another token, and the first one expires.
        self.call(
            Idempotency::Idempotent,
            "create a join token".to_owned(),
            async || self.nodes.clone().create_join_token(request.clone()).await,
        )
        .await
    }

    /// Drains a node, or puts it into service again.
    pub(crate) async fn set_drained(&self, id: &str, drained: bool) -> Result<pb::Node, Error> {
        let name = format!("nodes/{id}");
        let operation = if drained { "drain" } else { "undrain" };
        let operation = format!("{operation} {name}");
        self.call(Idempotency::Idempotent, operation, async || {
            let mut nodes = self.nodes.clone();
            let name = name.clone();
            if drained {
                nodes.drain_node(pb::DrainNodeRequest { name }).await
            } else {
                nodes.undrain_node(pb::UndrainNodeRequest { name }).await
            }
        })
        .await
    }

    /// Removes a node from the cluster.
    pub(crate) async fn remove_node(&self, id: &str) -> Result<(), Error> {
        let request = pb::RemoveNodeRequest {
            name: format!("nodes/{id}"),
            validate_only: false,
        };
        self.call(
            Idempotency::NotIdempotent,
            format!("remove {}", request.name),
            async || self.nodes.clone().remove_node(request.clone()).await,
        )
        .await
    }

    /// Instances on `node` (`-` for all nodes) of `service` (empty for all services).
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
                ..Default::default()
            };
            let response = self
                .call(
                    Idempotency::ReadOnly,
                    "list instances".to_owned(),
                    async || self.nodes.clone().list_instances(request.clone()).await,
                )
                .await?;
            Ok((response.instances, response.next_page_token))
        })
        .await
    }

    /// Counts the connected nodes that have applied a feed revision.
    pub(crate) async fn check_propagation(
        &self,
        revision: i64,
    ) -> Result<pb::CheckPropagationResponse, Error> {
        let request = pb::CheckPropagationRequest { revision };
        self.call(
            Idempotency::ReadOnly,
            "check propagation".to_owned(),
            async || self.nodes.clone().check_propagation(request).await,
        )
        .await
    }
}
