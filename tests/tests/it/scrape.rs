//! The metrics of a node, checked by Prometheus' own tool.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::{Cluster, settings};
use cless_tests::{http_client, paths};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::sample;

/// Checks a scrape; returns the complaints of the tool.
async fn promtool(scrape: &str) -> Result<String> {
    let program = paths::target_dir()?.join("tools/bin/promtool");
    ensure!(
        program.is_file(),
        "promtool is missing; `make tools` installs it"
    );
    let mut tool = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = tool.stdin.take().context("its input")?;
    input.write_all(scrape.as_bytes()).await?;
    drop(input);
    let output = tool.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault_in_a_scrape() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let env = [("EXIT_AT_START", "3")];
    cluster
        .serve_env("broken", sample().await?, settings(), &env)
        .await?;
    ensure!(cluster.get("hello", "/").await?.status == 200);
    ensure!(cluster.get("broken", "/").await?.status == 503);
    ensure!(cluster.get("unknown", "/").await?.status == 404);
    let scrape = http_client::get(cluster.node(0).admin, "admin", "/metrics").await?;
    let said = promtool(&scrape.text()).await?;
    ensure!(said.is_empty(), "{said}");
    let labels = r#"reason="start_failed",service="broken",version="1""#;
    let line = format!("cless_rejects_total{{{labels}}} 1");
    ensure!(scrape.text().contains(&line), "{}", scrape.text());
    cluster.finish().await
}
