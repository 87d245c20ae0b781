//! The node's credentials for a private registry.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use cless_tests::cluster::{Cluster, NodeSetup};
use cless_tests::registry::{self, Registry};
use serde_json::json;

use crate::cli::cless;
use crate::{contains, lacks};

/// A password whose base64 differs between the two alphabets.
const PASSWORD: &str = "p?~>?>~?";

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_needs_the_credentials_of_the_node() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("registries.json");
    std::fs::write(&file, "{}")?;
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH")?);
    let setup = NodeSetup {
        env: vec![("PATH".into(), path)],
        ..NodeSetup::flags(&["--registry-config", &file.display().to_string()])
    };
    let cluster = Cluster::start_with(1, setup).await?;
    let docker = cluster.docker().clone();
    let registry = Registry::private("me", PASSWORD).await?;
    let at = registry.address();
    let image = registry
        .push(&docker, at, ("team/app", "1"), "private", 0)
        .await?;
    let deploy = async |service: &str| {
        cless(&cluster, &["deploy", service, "--image", &image.reference]).await
    };
    let refused = async |service: &str, words: &[&str]| {
        let failed = deploy(service).await?;
        ensure!(failed.code == Some(7), "{failed:?}");
        for word in words {
            contains(&failed.stderr, word)?;
        }
        lacks(&failed.stderr, PASSWORD)?;
        anyhow::Ok(())
    };
    let (address, shown) = (at.to_string(), file.display().to_string());
    let (address, shown) = (address.as_str(), shown.as_str());

    let login = format!("docker login {at}");
    refused(
        "none",
        &[
            address,
            shown,
            login.as_str(),
            "has no credentials",
            "no basic auth",
        ],
    )
    .await?;
    std::fs::write(
        &file,
        format!("{{\"auths\": {{\"{at}\": {{\"password\": 7}}}}}}"),
    )?;
    refused("broken", &[shown, "is not valid at line 1"]).await?;
    let wrong = json!({"auths": {(address): {"username": "me", "password": "wrong"}}});
    std::fs::write(&file, wrong.to_string())?;
    refused("wrong", &[address, shown, "are insufficient"]).await?;

    // The file is read at each pull, without a restart of the node.
    let old_form = format!("http://{at}/v2/");
    let plain = json!({"auths": {(old_form): {"username": "me", "password": PASSWORD}}});
    std::fs::write(&file, plain.to_string())?;
    deploy("plain").await?.ok()?;
    ensure!(
        cluster.get("plain", "/").await?.text() == "private\n",
        "unexpected response"
    );
    cless(&cluster, &["service", "delete", "plain", "--yes"])
        .await?
        .ok()?;
    cluster.wait_containers("plain", 0, crate::SOON).await?;
    registry::remove_local(&docker, at).await?;

    let helper = dir.path().join("docker-credential-cless-test");
    let answer = json!({"ServerURL": address, "Username": "me", "Secret": PASSWORD});
    let script =
        format!("#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {at}' ] && echo '{answer}'\n");
    std::fs::write(&helper, script)?;
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(
        &file,
        json!({"credHelpers": {(address): "nonesuch"}}).to_string(),
    )?;
    refused(
        "nonesuch",
        &[shown, "docker-credential-nonesuch", "cannot be started"],
    )
    .await?;
    std::fs::write(
        &file,
        json!({"credHelpers": {(address): "cless-test"}}).to_string(),
    )?;
    deploy("helped").await?.ok()?;
    ensure!(
        cluster.get("helped", "/").await?.text() == "private\n",
        "unexpected response"
    );

    let log = std::fs::read_to_string(cluster.dir().join("node-0.log"))?;
    ensure!(!log.contains(PASSWORD), "the password is logged");
    cluster.finish().await?;
    registry::remove_local(&docker, at).await
}
