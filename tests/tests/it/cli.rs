//! The built `cless` against a real cluster: deploy, split, roll back, exit codes.

use anyhow::{Context as _, Result, ensure};
use cless_tests::access::Access;
use cless_tests::cluster::Cluster;
use cless_tests::paths;
use cless_tests::process::{Outcome, run};
use serde_json::Value;
use tokio::process::Command;

use crate::{contains, count_answers, sample};

/// Runs the CLI as an administrator.
pub(crate) async fn cless(cluster: &Cluster, args: &[&str]) -> Result<Outcome> {
    cless_as(cluster, cluster.access(), args).await
}

/// Runs the CLI with another access.
pub(crate) async fn cless_as(cluster: &Cluster, access: &Access, args: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(paths::program("cless")?);
    command.arg("--server").arg(cluster.url());
    command.envs(access.variables());
    if let Some(node) = cluster.nodes().first() {
        let proxy = format!("http://{}", node.listen);
        command.args(["--proxy", &proxy]);
    }
    command.args(args);
    run(command).await
}

async fn cless_json(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let stdout = cless(cluster, &[&["-o", "json"], args].concat())
        .await?
        .ok()?;
    serde_json::from_str(&stdout).with_context(|| format!("not JSON: {stdout}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_split_roll_back() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let image = sample().await?;
    for (greeting, version) in [("one", 1), ("two", 2)] {
        let env = format!("GREETING={greeting}");
        let out = cless(&cluster, &["deploy", "hello", "--image", image, "-e", &env]).await?;
        ensure!(out.code == Some(0), "{out:?}");
        cluster.wait_propagated(0).await?;
        let answer = cluster.get("hello", "/").await?;
        ensure!(
            answer.text() == format!("{greeting}\n"),
            "version {version}: {answer:?}"
        );
    }

    cless(&cluster, &["traffic", "set", "hello", "v1=25", "v2=75"])
        .await?
        .ok()?;
    cluster.wait_propagated(0).await?;
    let counts = count_answers(cluster.node(0).listen, "hello.localhost", 100, 4).await?;
    ensure!(counts.keys().eq(["one", "two"]), "{counts:?}");

    cless(&cluster, &["rollback", "hello"]).await?.ok()?;
    cluster.wait_propagated(0).await?;
    let counts = count_answers(cluster.node(0).listen, "hello.localhost", 50, 4).await?;
    ensure!(counts.keys().eq(["two"]), "{counts:?}");

    let history = cless(&cluster, &["traffic", "history", "hello"])
        .await?
        .ok()?;
    ensure!(history.lines().count() >= 5, "{history}");
    let version = cless_json(&cluster, &["version", "get", "hello", "2"]).await?;
    ensure!(
        version["verification"]["state"] == "STATE_VERIFIED",
        "{version}"
    );
    for args in [
        &["service", "list"][..],
        &["node", "list"],
        &["instance", "list"],
    ] {
        let table = cless(&cluster, args).await?.ok()?;
        ensure!(table.lines().count() >= 2, "{args:?}: {table}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_deploy_shows_the_log_exits_with_7_and_keeps_the_traffic() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let image = sample().await?;
    cless(
        &cluster,
        &["deploy", "hello", "--image", image, "-e", "GREETING=one"],
    )
    .await?
    .ok()?;
    let before = cless_json(&cluster, &["traffic", "get", "hello"]).await?;

    let args = ["deploy", "hello", "--image", image, "-e", "EXIT_AT_START=3"];
    let failed = cless(&cluster, &args).await?;
    ensure!(failed.code == Some(7), "{failed:?}");
    contains(&failed.stderr, "leaving with code 3")?;
    let after = cless_json(&cluster, &["traffic", "get", "hello"]).await?;
    ensure!(before == after, "traffic changed: {before} {after}");
    ensure!(
        cluster.get("hello", "/").await?.text() == "one\n",
        "the old version is gone"
    );

    let missing = ["deploy", "hello", "--image", "localhost:1/nobody/nothing:1"];
    let failed = cless(&cluster, &missing).await?;
    ensure!(failed.code == Some(7), "{failed:?}");
    contains(&failed.stderr, "localhost:1/nobody/nothing:1")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_distinguish_errors() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let cases: [(&[&str], i32); 4] = [
        (&["service", "get", "nobody"], 5),
        (&["traffic", "set", "nobody", "v1=100"], 5),
        (&["deploy"], 2),
        (&["service", "create", "admin"], 2),
    ];
    for (args, code) in cases {
        let outcome = cless(&cluster, args).await?;
        ensure!(outcome.code == Some(code), "{args:?}: {outcome:?}");
        ensure!(
            outcome.stdout.is_empty(),
            "{args:?}: errors go to stderr: {outcome:?}"
        );
        ensure!(!outcome.stderr.is_empty(), "{args:?}: no message");
    }
    cless(&cluster, &["service", "create", "hello"])
        .await?
        .ok()?;
    let again = cless(&cluster, &["service", "create", "hello"]).await?;
    ensure!(again.code == Some(6), "{again:?}");
    cluster.finish().await
}
