//! `NodeService`: the nodes and their instances, read from memory, and their place in the cluster.

use super::convert::nodes;
use super::node_scope::{sees, visible};
use super::{Api, caller, filter, membership, page, parsed, state_word, status, validated};
use crate::domain::{FilterField, Violations, name};
use crate::nodes::RESTORED;
use crate::nodes::registry::Propagation;
use cless_proto::v1 as pb;
use cless_proto::v1::node_service_server::NodeService;
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

const NODES: &str = "nodes";
const NODE_FILTER: [FilterField; 1] = [FilterField::OneOf("state", &["CONNECTED", "STALE"])];
const INSTANCE_FILTER: [FilterField; 3] = [
    FilterField::OneOf(
        "state",
        &[
            "CREATING", "STARTING", "PROBING", "READY", "PAUSING", "PAUSED", "RESUMING",
            "DRAINING", "STOPPING", "FAILED",
        ],
    ),
    FilterField::Text("service"),
    FilterField::Text("version"),
];

#[tonic::async_trait]
impl NodeService for Api {
    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let filter = filter(&request.filter, &NODE_FILTER)?;
        let list = page::list(NODES, &request.filter);
        let after = page::key(&list, &request.page_token).map_err(status::invalid_page)?;
        let head = self.feed.head();
        let nodes = self.nodes.all();
        let shown = nodes
            .iter()
            .map(|node| visible(nodes::node(node, &head), &caller));
        let selected = shown.filter(|node| {
            let state = state_word(node.state().as_str_name());
            filter.matches(|_state| state, &BTreeMap::new())
        });
        // `nodes/` is no part of the key.
        let key = |node: &pb::Node| node.name.replacen("nodes/", "", 1);
        let found = page::paginate(selected, size, after.as_deref(), key);
        let next_page_token = page::next_token(&found, &list, key);
        Ok(Response::new(pb::ListNodesResponse {
            nodes: found.items,
            next_page_token,
        }))
    }

    async fn get_node(
        &self,
        request: Request<pb::GetNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let node = parsed("name", name::parse_node(&request.name))?;
        let Some(node) = self.nodes.by_name(&node) else {
            return Err(status::not_found("cless.v1.Node", request.name));
        };
        let node = nodes::node(&node, &self.feed.head());
        Ok(Response::new(visible(node, &caller)))
    }

    async fn list_instances(
        &self,
        request: Request<pb::ListInstancesRequest>,
    ) -> Result<Response<pb::ListInstancesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut violations = Violations::new();
        let parent = violations.take("parent", name::parse_node_or_all(&request.parent));
        let mut only = None;
        if !request.service.is_empty() {
            only = violations.take("service", name::parse_service(&request.service));
        }
        let parent = validated(parent, violations)?;
        if let Some(service) = &only {
            self.permit(&caller, service)?;
        }
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let filter = filter(&request.filter, &INSTANCE_FILTER)?;
        let list = format!("instances of {} on {}", request.service, request.parent);
        let list = page::list(&list, &request.filter);
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
        instances.retain(|instance| {
            if !sees(&caller, &instance.service) {
                return false;
            }
            let version = instance.version.to_string();
            let value = |field: &str| match field {
                "service" => &*instance.service,
                "version" => &*version,
                _ => state_word(instance.state().as_str_name()),
            };
            filter.matches(value, &BTreeMap::new())
        });
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
        let Propagation {
            applied,
            pending,
            ahead,
        } = self.nodes.propagation(&head.epoch, revision);
        let nodes_total = applied + u32::try_from(pending.len()).unwrap_or(u32::MAX);
        Ok(Response::new(pb::CheckPropagationResponse {
            revision,
            nodes_total,
            nodes_applied: applied,
            pending: pending.iter().map(name::node).collect(),
            warnings: ahead
                .iter()
                .map(|node| format!("{}: {RESTORED}", name::node(node)))
                .collect(),
        }))
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        membership::create_join_token(self, request).await
    }

    async fn drain_node(
        &self,
        request: Request<pb::DrainNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        membership::set_node_drained(self, request, |request| request.name, true).await
    }

    async fn undrain_node(
        &self,
        request: Request<pb::UndrainNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        membership::set_node_drained(self, request, |request| request.name, false).await
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<()>, Status> {
        membership::remove_node(self, request).await
    }
}
