//! Trust end to end: nobody without a credential, roles, revocation, joined nodes, expired
//! certificates.

mod nodes;
mod strangers;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::token_service_client::TokenServiceClient;
use cless_tests::access::Access;
use cless_tests::cluster::{Api, Cluster, settings};
use cless_tests::wait;
use tonic::Code;
use v1::token::Role;

use crate::cli::{cless, cless_as};
use crate::{SOON, check_serves, contains, lacks, sample};

/// A revocation is in force on every control plane within this time.
const REVOCATION: Duration = Duration::from_secs(2);

/// Creates a token; returns its access and its name.
async fn create_token(
    cluster: &Cluster,
    role: Role,
    services: &[&str],
) -> Result<(Access, String)> {
    let scope = v1::token::Scope {
        services: services.iter().map(|one| (*one).to_owned()).collect(),
        hosts: Vec::new(),
    };
    let request = v1::CreateTokenRequest {
        token: Some(v1::Token {
            role: role.into(),
            scope: (!services.is_empty()).then_some(scope),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(cluster.channel()?);
    let created = tokens.create_token(request).await?.into_inner();
    let name = created.token.context("a token")?.name;
    Ok((cluster.access().with_token(Some(created.secret)), name))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_node_serves_and_roles_are_enforced() -> Result<()> {
    let cluster = Cluster::start_trusted(1).await?;
    let image = sample().await?;
    let (deployer, _) = create_token(&cluster, Role::Deployer, &["hello"]).await?;
    let deploy = ["deploy", "hello", "--image", image];
    let deployed = cless_as(&cluster, &deployer, &deploy).await?;
    ensure!(deployed.code == Some(0), "{deployed:?}");
    check_serves(&cluster, "hello").await?;

    // Outside of the scope, whether the service exists or not.
    let other = ["service", "get", "other"];
    let refused = cless_as(&cluster, &deployer, &other).await?;
    ensure!(refused.code == Some(4), "{refused:?}");

    let (viewer, _) = create_token(&cluster, Role::Viewer, &[]).await?;
    let read = cless_as(&cluster, &viewer, &["service", "get", "hello"]).await?;
    ensure!(read.code == Some(0), "{read:?}");
    for args in [&deploy[..], &["service", "delete", "hello", "--yes"]] {
        let refused = cless_as(&cluster, &viewer, args).await?;
        ensure!(refused.code == Some(4), "{refused:?}");
        contains(&refused.stderr, "deployer")?;
    }
    let refused = cless_as(&cluster, &deployer, &["token", "list"]).await?;
    ensure!(refused.code == Some(4), "{refused:?}");
    contains(&refused.stderr, "admin")?;

    let history = cless(&cluster, &["audit", "--service", "hello"]).await?;
    ensure!(history.code == Some(0), "{history:?}");
    contains(&history.stdout, "CreateVersion")?;
    contains(&history.stdout, "tokens/")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_within_two_seconds_and_its_streams_end() -> Result<()> {
    let cluster = Cluster::start_trusted(1).await?;
    let (viewer, name) = create_token(&cluster, Role::Viewer, &[]).await?;
    let mut api = Api::new(viewer.channel(cluster.grpc())?);
    let watch = v1::WatchRoutesRequest::default();
    let mut routes = api.feed.watch_routes(watch).await?.into_inner();
    routes.message().await?.context("the table")?;

    let mut tokens = TokenServiceClient::new(cluster.channel()?);
    let revoke = v1::RevokeTokenRequest {
        name,
        validate_only: false,
    };
    tokens.revoke_token(revoke).await?;
    let end = tokio::time::timeout(REVOCATION, async {
        while routes.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    let end = end.await.context("the stream goes on")?;
    let code = end.err().map(|status| status.code());
    ensure!(code == Some(Code::Unauthenticated), "{code:?}");
    let refused = api
        .catalog
        .list_services(v1::ListServicesRequest::default());
    let refused = refused.await.err().map(|status| status.code());
    ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_log_and_no_list() -> Result<()> {
    let cluster = Cluster::start_trusted(1).await?;
    let (viewer, _) = create_token(&cluster, Role::Viewer, &[]).await?;
    let used = cless_as(&cluster, &viewer, &["service", "list"]).await?;
    ensure!(used.code == Some(0), "{used:?}");
    let mut secrets = Vec::new();
    for access in [&viewer, cluster.access()] {
        if let Access::Trusted { token, .. } = access {
            let token = token.as_deref().context("a token")?;
            let (_, secret) = token.rsplit_once('_').context("the form of a token")?;
            secrets.push(secret.to_owned());
        }
    }
    ensure!(secrets.len() == 2, "{secrets:?}");
    let listed = cless(&cluster, &["-o", "json", "token", "list"])
        .await?
        .ok()?;
    let audit = cless(&cluster, &["-o", "json", "audit"]).await?.ok()?;
    contains(&listed, "lastUseTime")?;
    for file in ["control-plane.log", "node-0.log"] {
        let log = std::fs::read_to_string(cluster.dir().join(file))?;
        for secret in &secrets {
            lacks(&log, secret)?;
        }
    }
    for secret in &secrets {
        lacks(&listed, secret)?;
        lacks(&audit, secret)?;
    }
    cluster.finish().await
}

/// Waits until node 0 follows the feed with a certificate.
async fn wait_connected(cluster: &Cluster, node: &str) -> Result<v1::Node> {
    wait::until("the node is connected", SOON, async || {
        let mut api = cluster.api()?;
        let request = v1::GetNodeRequest {
            name: format!("nodes/{node}"),
        };
        let found = api.nodes.get_node(request).await?.into_inner();
        let connected = found.state() == v1::node::State::Connected;
        Ok(connected.then_some(found))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_a_joined_node_sleeps_and_wakes() -> Result<()> {
    let cluster = Cluster::start_trusted(1).await?;
    let short = v1::ServiceSettings {
        idle_timeout: cless_tests::cluster::duration(Duration::from_secs(1)),
        ..settings()
    };
    cluster.serve("hello", sample().await?, short).await?;
    check_serves(&cluster, "hello").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    check_serves(&cluster, "hello").await?;
    let node = wait_connected(&cluster, "node-0").await?;
    ensure!(node.certificate_expire_time.is_some(), "{node:?}");
    cluster.finish().await
}
