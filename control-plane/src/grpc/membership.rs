//! The place of nodes in the cluster: join tokens, draining and removal.

use super::convert::{nodes, requests, timestamp};
use super::node_scope::visible;
use super::{Api, caller, now, parsed, status, validated};
use crate::domain::{NodeName, Violations, name};
use crate::nodes::drain::set_drained;
use crate::store::{self, NewJoinToken, WriteOptions};
use cless_proto::join_token::JoinToken;
use cless_proto::token::secret_hash;
use cless_proto::v1 as pb;
use rand::RngExt as _;
use tonic::{Request, Response, Status};

const KIND: &str = "cless.v1.Node";

pub(super) async fn create_join_token(
    api: &Api,
    request: Request<pb::CreateJoinTokenRequest>,
) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
    let caller = caller(&request)?;
    let ca = api.ca.as_deref().ok_or_else(status::no_authority)?;
    let request = request.into_inner();
    let mut violations = Violations::new();
    let only = match request.node_id.as_str() {
        "" => Some(None),
        _ => violations
            .take("node_id", NodeName::parse(request.node_id))
            .map(Some),
    };
    let options = requests::write_options(
        &caller,
        now(),
        request.validate_only,
        String::new(),
        &mut violations,
    );
    let (only, options) = validated(only.zip(options), violations)?;
    let (id, secret) = {
        let mut rng = rand::rng();
        (rng.random(), rng.random())
    };
    let token = JoinToken::new(id, secret, *ca.fingerprint().as_bytes());
    let new = NewJoinToken {
        id: token.id(),
        hash: secret_hash(&secret),
        name: only,
    };
    let created = api.store.create_join_token(new, options).await;
    let created = created.map_err(status::store)?;
    let join_token = if request.validate_only {
        String::new()
    } else {
        token.expose()
    };
    Ok(Response::new(pb::CreateJoinTokenResponse {
        join_token,
        expire_time: Some(timestamp(created.resource)),
    }))
}

/// Drains a node, or puts it into service again.
pub(super) async fn set_node_drained<R>(
    api: &Api,
    request: Request<R>,
    name_of: impl FnOnce(R) -> String,
    drained: bool,
) -> Result<Response<pb::Node>, Status> {
    let caller = caller(&request)?;
    let resource = name_of(request.into_inner());
    let node_name = parsed("name", name::parse_node(&resource))?;
    api.replicas.refresh().await.map_err(status::store)?;
    let find = || {
        let node = api.nodes.by_name(&node_name);
        node.ok_or_else(|| status::not_found(KIND, resource.clone()))
    };
    let node = find()?;
    let was_drained = node.is_drained();
    set_drained(&api.nodes, &node, drained)
        .await
        .map_err(|error| status::not_drained(&node_name, error))?;
    if was_drained != drained {
        let options = WriteOptions {
            now: now(),
            validate_only: false,
            request_id: None,
            by: caller.origin.clone(),
        };
        let recorded = api.store.record_drain(&node_name, drained, options).await;
        recorded.map_err(status::store)?;
        tracing::info!(node = %node_name, drained, "a node is in service or out of it");
    }
    let shown = nodes::node(&find().unwrap_or(node), &api.feed.head());
    let shown = visible(shown, &caller);
    Ok(Response::new(pb::Node { drained, ..shown }))
}

pub(super) async fn remove_node(
    api: &Api,
    request: Request<pb::RemoveNodeRequest>,
) -> Result<Response<()>, Status> {
    let caller = caller(&request)?;
    let request = request.into_inner();
    let mut violations = Violations::new();
    let node = violations.take("name", name::parse_node(&request.name));
    let options = requests::write_options(
        &caller,
        now(),
        request.validate_only,
        String::new(),
        &mut violations,
    );
    let (node, options) = validated(node.zip(options), violations)?;
    match api.store.remove_node(node.clone(), options).await {
        Ok(_) if request.validate_only => {}
        Ok(removed) => {
            api.auth.refresh(&api.store).await;
            api.nodes.forget(&removed.resource.id);
            tracing::info!(%node, id = removed.resource.id, "a node was removed");
        }
        Err(store::Error::NotFound { .. }) if api.nodes.by_name(&node).is_some() => {
            return Err(status::not_enrolled(request.name));
        }
        Err(error) => return Err(status::store(error)),
    }
    Ok(Response::new(()))
}
