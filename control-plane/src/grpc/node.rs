//! `NodeService`: the nodes and their instances, read from memory.

use super::convert::nodes;
use super::{Api, page, parsed, status, validated};
use crate::domain::{Violations, name};
use crate::nodes::registry::Propagation;
use cless_proto::v1 as pb;
use cless_proto::v1::node_service_server::NodeService;
use tonic::{Request, Response, Status};

const NODES: &str = "nodes";

#[tonic::async_trait]
impl NodeService for Api {
    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let after = page::key(NODES, &request.page_token).map_err(status::invalid_page)?;
        let head = self.feed.head();
        let nodes = self.nodes.all();
        let found = page::paginate(&nodes, size, after.as_deref(), |node| {
            node.identity.name.to_string()
        });
        let next_page_token =
            page::next_token(&found, NODES, |node| node.identity.name.to_string());
        let nodes = found
            .items
            .iter()
            .map(|node| nodes::node(node, &head))
            .collect();
        Ok(Response::new(pb::ListNodesResponse {
            nodes,
            next_page_token,
        }))
    }

    async fn get_node(
        &self,
        request: Request<pb::GetNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        let request = request.into_inner();
        let node = parsed("name", name::parse_node(&request.name))?;
        let Some(node) = self.nodes.by_name(&node) else {
            return Err(status::not_found("cless.v1.Node", request.name));
        };
        Ok(Response::new(nodes::node(&node, &self.feed.head())))
    }

    async fn list_instances(
        &self,
        request: Request<pb::ListInstancesRequest>,
    ) -> Result<Response<pb::ListInstancesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::new();
        let parent = violations.take("parent", name::parse_node_or_all(&request.parent));
        if !request.service.is_empty() {
            violations.take("service", name::parse_service(&request.service));
        }
        let parent = validated(parent, violations)?;
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let list = format!("instances of {} on {}", request.service, request.parent);
        let after = page::key(&list, &request.page_token).map_err(status::invalid_page)?;
        let nodes = match parent {
            None => self.nodes.all(),
            Some(node) => match self.nodes.by_name(&node) {
                Some(node) => vec![node],
                None => return Err(status::not_found("cless.v1.Node", request.parent)),
            },
        };
        let mut instances: Vec<pb::Instance> = Vec::new();
        for node in &nodes {
            let reported = node.report.iter().flat_map(|(_, report)| &report.instances);
            let selected = reported.filter(|instance| {
                request.service.is_empty() || instance.service == request.service
            });
            instances
                .extend(selected.map(|instance| nodes::instance(&node.identity.name, instance)));
        }
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        let found = page::paginate(instances, size, after.as_deref(), |instance| {
            instance.name.clone()
        });
        let next_page_token = page::next_token(&found, &list, |instance| instance.name.clone());
        Ok(Response::new(pb::ListInstancesResponse {
            instances: found.items,
            next_page_token,
        }))
    }

    async fn check_propagation(
        &self,
        request: Request<pb::CheckPropagationRequest>,
    ) -> Result<Response<pb::CheckPropagationResponse>, Status> {
        let requested = request.into_inner().revision;
        // The database's head, not the published one: callers ask right after their write.
        let head = self.store.head().await.map_err(status::store)?;
        let mut violations = Violations::new();
        if requested < 0 {
            violations.push(
                "revision",
                "is negative: give a feed revision, or 0 for the head",
            );
        } else if requested > head.revision {
            let reason = format!(
                "{requested} is above the head, {}: no such revision yet",
                head.revision
            );
            violations.push("revision", reason);
        }
        validated(Some(()), violations)?;
        let revision = if requested == 0 {
            head.revision
        } else {
            requested
        };
        self.replicas.refresh().await.map_err(status::store)?;
        let Propagation { applied, pending } = self.nodes.propagation(&head.epoch, revision);
        let nodes_total = applied + u32::try_from(pending.len()).unwrap_or(u32::MAX);
        Ok(Response::new(pb::CheckPropagationResponse {
            revision,
            nodes_total,
            nodes_applied: applied,
            pending: pending.iter().map(name::node).collect(),
        }))
    }
}
