//! Nodes that cannot set their rules.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use cless_proto::v1::isolation::State;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::process::run;
use cless_tests::{firewall, paths, wait};

use super::wait_isolation;
use crate::{SOON, check_serves, contains, lacks, sample};

/// Creates a directory for PATH with the real iptables, which fail with a permission error while the
/// directory contains a file `broken`.
fn breakable_iptables(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for tool in [
        "iptables-save",
        "iptables-restore",
        "ip6tables-save",
        "ip6tables-restore",
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()?;
        let real = String::from_utf8(found.stdout)?;
        ensure!(!real.is_empty(), "{tool} is not on PATH");
        let broken = dir.join("broken");
        let script = format!(
            "#!/bin/sh\nif [ -e '{}' ]; then echo '{tool}: Permission denied (you must be root)' >&2; \
             exit 4; fi\nexec {} \"$@\"\n",
            broken.display(),
            real.trim()
        );
        let path = dir.join(tool);
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn on_path(dir: &Path, args: &[&str]) -> NodeSetup {
    NodeSetup {
        env: vec![("PATH".to_owned(), dir.display().to_string())],
        ..NodeSetup::flags(args)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_iptables_reports_it_and_serves() -> Result<()> {
    let mut cluster = Cluster::start(0).await?;
    let empty = cluster.dir().join("empty");
    cluster.add_node_with(on_path(&empty, &[])).await?;
    cluster.wait_propagated(0).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    check_serves(&cluster, "hello").await?;
    let isolation = wait_isolation(&cluster, 0, State::None).await?;
    contains(&isolation.reason, "`iptables-save` is not on PATH: install")?;
    let server = cluster.url();
    for (command, expected) in [
        ("get", "`iptables-save` is not on PATH"),
        ("list", " NONE "),
    ] {
        let mut cless = tokio::process::Command::new(paths::program("cless")?);
        cless.args(["--server", &server, "node", command]);
        cless.args((command == "get").then_some("node-0"));
        let text = run(cless).await?.ok()?;
        ensure!(text.contains(expected), "{text}");
    }
    let log = std::fs::read_to_string(cluster.dir().join("node-0.log"))?;
    ensure!(log.contains("containers are not isolated"), "{log}");
    ensure!(
        firewall::rules(&cluster.node_id(0)?).is_empty(),
        "the node set rules"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_required_isolation_does_not_start_without_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (flag, path, expected) in [
        (
            "--require-isolation",
            "/nowhere",
            "`iptables-save` is not on PATH: install",
        ),
        (
            "--engine=tcp://203.0.113.9:2375",
            "",
            "the engine runs on 203.0.113.9",
        ),
    ] {
        let mut node = tokio::process::Command::new(paths::program("cless-data-plane")?);
        node.args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--control-plane",
            "http://127.0.0.1:7070",
            "--node",
            "one",
            flag,
        ]);
        node.arg("--cache-dir").arg(dir.path());
        node.env("CLESS_NODE_REQUIRE_ISOLATION", "true")
            .env("PATH", path);
        let outcome = run(node).await?;
        ensure!(outcome.code == Some(1), "{outcome:?}");
        let stderr = &outcome.stderr;
        contains(stderr, "isolation is required (--require-isolation)")?;
        ensure!(stderr.contains(expected), "{stderr}");
    }
    let id = std::fs::read_to_string(dir.path().join("node-id"))?;
    ensure!(firewall::rules(&id).is_empty(), "rules are left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_fail_while_required_rules_are_missing() -> Result<()> {
    let mut cluster = Cluster::start(0).await?;
    let tools = cluster.dir().join("tools");
    breakable_iptables(&tools)?;
    cluster
        .add_node_with(on_path(&tools, &["--require-isolation"]))
        .await?;
    cluster.wait_propagated(0).await?;
    for service in ["runs", "starts"] {
        cluster.serve(service, sample().await?, settings()).await?;
    }
    check_serves(&cluster, "runs").await?;
    wait_isolation(&cluster, 0, State::Enforced).await?;

    std::fs::write(tools.join("broken"), "")?;
    let isolation = wait_isolation(&cluster, 0, State::None).await?;
    ensure!(isolation.reason.contains("CAP_NET_ADMIN"), "{isolation:?}");
    check_serves(&cluster, "runs").await?;
    let refused = cluster.get("starts", "/").await?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(refused.header("retry-after").is_some(), "{refused:?}");
    lacks(&refused.text(), "isolation")?;
    ensure!(
        cluster.containers(Some("starts")).await?.is_empty(),
        "a container was created"
    );
    let reason = wait::until("the version's status has the reason", SOON, async || {
        let version = cluster.api()?.version("starts", 1).await?;
        let status = version.status.unwrap_or_default();
        let failure = status.nodes.into_iter().find_map(|node| node.last_failure);
        Ok(failure.map(|failure| failure.message))
    })
    .await?;
    contains(&reason, "--require-isolation")?;
    contains(&reason, "CAP_NET_ADMIN")?;

    std::fs::remove_file(tools.join("broken"))?;
    wait::until(
        "the service starts once the rules are restored",
        SOON,
        async || Ok((cluster.get("starts", "/").await?.status == 200).then_some(())),
    )
    .await?;
    wait_isolation(&cluster, 0, State::Enforced).await?;
    cluster.finish().await
}
