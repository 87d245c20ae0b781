//! No log line contains a value of a version's environment, at any level.

use anyhow::{Result, ensure};
use cless_tests::cluster::{Cluster, NodeSetup, settings};

use crate::{SOON, sample};

#[tokio::test(flavor = "multi_thread")]
async fn no_log_at_trace_contains_a_planted_value() -> Result<()> {
    let planted = "planted-7f3a9c51e2";
    let trace = ("RUST_LOG".to_owned(), "trace".to_owned());
    let setup = NodeSetup {
        env: vec![trace.clone()],
        ..NodeSetup::default()
    };
    let mut cluster = Cluster::start_with(0, setup).await?;
    cluster.kill_control_plane().await?;
    cluster.start_control_plane_with(&[trace]).await?;
    cluster.add_node().await?;
    let env = [("TOKEN", planted), ("GREETING", "one")];
    cluster
        .serve_env("hello", sample().await?, settings(), &env)
        .await?;
    let answer = cluster.get("hello", "/env").await?;
    ensure!(answer.text().contains(planted), "the app has no value");
    // A rejected request, inspections, events, a report, a removal.
    ensure!(cluster.get("nobody", "/").await?.status == 404);
    cluster.api()?.version("hello", 1).await?;
    cluster.kill_node(0).await?;
    cluster.start_node(0).await?;
    ensure!(cluster.get("hello", "/").await?.status == 200);
    cluster.api()?.delete_service("hello").await?;
    cluster.wait_containers("hello", 0, SOON).await?;
    let mut lines = 0;
    for name in ["control-plane.log", "node-0.log"] {
        let log = std::fs::read(cluster.dir().join(name))?;
        let log = String::from_utf8_lossy(&log);
        ensure!(log.contains("TRACE"), "{name} is not at trace");
        ensure!(!log.contains('\u{1b}'), "{name} has colours");
        for line in log.lines() {
            lines += 1;
            let cut: String = line.chars().take(400).collect();
            ensure!(!line.contains(planted), "{name}: {cut}");
        }
    }
    ensure!(lines > 100, "{lines} lines");
    cluster.finish().await
}
