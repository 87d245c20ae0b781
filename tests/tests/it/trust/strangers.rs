//! Programs of others against the gRPC port: grpcurl, `openssl s_client`, curl, and plaintext.

use std::process::Stdio;

use anyhow::{Result, ensure};
use cless_tests::cluster::Cluster;
use cless_tests::paths;
use cless_tests::process::{Outcome, run};
use tokio::process::Command;

use super::create_token;
use crate::contains;
use cless_proto::v1::token::Role;
use cless_tests::access::Access;

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

async fn grpcurl(args: &[&str]) -> Result<Outcome> {
    let program = paths::target_dir()?.join("tools/bin/grpcurl");
    run(command(&program.display().to_string(), args)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_needs_the_authority_and_a_token() -> Result<()> {
    let cluster = Cluster::start_trusted(0).await?;
    let server = format!("localhost:{}", cluster.grpc().port());
    let authority = cluster.data_dir().join("ca.pem").display().to_string();
    let list = "cless.v1.CatalogService/ListServices";

    // The schema and the health are open.
    let health = [
        "-cacert",
        &authority,
        &server,
        "grpc.health.v1.Health/Check",
    ];
    let health = grpcurl(&health).await?;
    contains(&health.stdout, "SERVING")?;
    let refused = grpcurl(&["-cacert", &authority, &server, list]).await?;
    ensure!(refused.code != Some(0), "{refused:?}");
    contains(&refused.stderr, "Unauthenticated")?;

    let (viewer, _) = create_token(&cluster, Role::Viewer, &[]).await?;
    let Access::Trusted {
        token: Some(token), ..
    } = viewer
    else {
        anyhow::bail!("no token");
    };
    let bearer = format!("authorization: Bearer {token}");
    let with_token = ["-cacert", &authority, "-H", &bearer, &server, list];
    let listed = grpcurl(&with_token).await?;
    ensure!(listed.code == Some(0), "{listed:?}");

    // Without the authority, and in plaintext.
    let unknown = grpcurl(&["-H", &bearer, &server, list]).await?;
    contains(&unknown.stderr, "certificate")?;
    let plaintext = grpcurl(&["-plaintext", "-H", &bearer, &server, list]).await?;
    ensure!(plaintext.code != Some(0), "{plaintext:?}");
    contains(&plaintext.stderr, "TLS")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_the_certificate_and_curl_is_told_of_tls() -> Result<()> {
    let cluster = Cluster::start_trusted(0).await?;
    let at = cluster.grpc().to_string();
    let authority = cluster.data_dir().join("ca.pem").display().to_string();
    let name = format!("plane.{}.cless.internal", cluster.id());
    let args = [
        "s_client",
        "-connect",
        &at,
        "-servername",
        &name,
        "-verify_hostname",
        &name,
        "-CAfile",
        &authority,
        "-verify_return_error",
        "-alpn",
        "h2",
    ];
    let shown = run(command("openssl", &args)).await?;
    contains(&shown.stdout, "Verify return code: 0 (ok)")?;
    contains(&shown.stdout, "ALPN protocol: h2")?;

    let url = format!("http://{at}/");
    let plain = run(command("curl", &["-sS", "-i", "--max-time", "10", &url])).await?;
    contains(&plain.stdout, "400")?;
    contains(&plain.stdout, "TLS")?;
    cluster.finish().await
}
