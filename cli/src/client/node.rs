//! Calls of `NodeService`.

use cless_proto::v1 as pb;

use super::Client;
use crate::error::{Effect, Error};

impl Client {
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
