//! `make bench-control`: write rate and start time of the control plane, and propagation of traffic
//! changes.
//!
//! - `writes_per_s`: acknowledged `CreateVersion` calls of 1, 8 and 64 writers, compared with the
//!   same transaction in raw SQLite (`bench_control/writes.rs`);
//! - `start_…_ms`: from process start to the first response, with 100, 1 000 and 10 000 services in
//!   the database, the last with 100 000 versions (`bench_control/starts.rs`);
//! - `change_in_force_ms`: from the acknowledged write of a traffic change to the first response of
//!   the new version through the proxy; both versions are warm.
//!
//! Times are measured by the caller with real processes and containers.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{self, Better, Row, print_line};
use cless_tests::stats::{median, millis, quantile};
use cless_tests::{image, paths};
use tokio::time::Instant;

#[path = "bench_control/starts.rs"]
mod starts;
#[path = "bench_control/writes.rs"]
mod writes;

const SERVICE: &str = "change";
const HOST: &str = "change.localhost";
const SOON: Duration = Duration::from_secs(30);

/// Measures writes and starts of the control plane, and the propagation of changes to the proxy.
#[derive(Parser)]
struct Args {
    /// Rounds of writes; each runs both sides with each number of writers.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds per side and round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Starts per number of services.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Traffic changes.
    #[arg(long, default_value_t = 50)]
    changes: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Not under /tmp, which may be in memory, where a flush costs nothing.
    let dir = tempfile::Builder::new()
        .prefix("bench-control-")
        .tempdir_in(paths::target_dir()?)?;
    let mut rows = writes::run(
        dir.path(),
        args.rounds,
        Duration::from_secs_f64(args.seconds),
    )
    .await?;
    rows.extend(starts::run(dir.path(), args.starts).await?);
    let cluster = Cluster::start(1).await?;
    let changes = changes(&cluster, args.changes).await?;
    cluster.finish().await?;
    print_line(&format!(
        "{} traffic changes take effect after the acknowledged write: median {:.1} ms, p99 {:.1} ms",
        changes.len(),
        millis(median(&changes)),
        millis(quantile(&changes, 0.99)),
    ));
    rows.push(Row {
        case: "one node",
        metric: "change_in_force_ms",
        better: Better::Lower,
        ours: millis(quantile(&changes, 0.99)),
        reference: None,
        bar: Some(100.0),
    });
    print_line(&format!("\n{}", report::table(&rows)));
    let path = report::write("control", &rows)?;
    print_line(&format!("wrote {}", path.display()));
    Ok(())
}

/// Moves all traffic back and forth between two warm versions. Returns the time of each change from
/// its acknowledgement to the first response of the new version.
async fn changes(cluster: &Cluster, count: usize) -> Result<Vec<Duration>> {
    let image = image::sample_app(cluster.docker()).await?;
    let mut api = cluster.api()?;
    api.create_service(SERVICE, settings()).await?;
    for number in [1, 2] {
        let greeting = number.to_string();
        api.create_version(SERVICE, &image, &[("GREETING", &greeting)])
            .await?;
        let traffic = cluster.set_traffic(SERVICE, &[(number, 100)]).await?;
        cluster.wait_propagated(traffic.feed_revision).await?;
        ensure!(cluster.get(SERVICE, "/").await?.text().trim() == greeting);
    }
    let mut connection = Connection::open(cluster.node(0).listen).await?;
    let mut times = Vec::with_capacity(count);
    for change in 0..count {
        let version = change % 2 + 1;
        api.set_traffic(SERVICE, &[(i32::try_from(version)?, 100)])
            .await?;
        let begin = Instant::now();
        // `wait::until` pauses between attempts, which would count in the measurement.
        loop {
            let response = connection.get(HOST, "/").await?;
            ensure!(response.status == 200, "{response:?}");
            if response.text().trim() == version.to_string() {
                break;
            }
            ensure!(
                begin.elapsed() < SOON,
                "change {change} does not take effect"
            );
        }
        times.push(begin.elapsed());
    }
    Ok(times)
}
