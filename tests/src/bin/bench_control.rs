//! `make bench-control`: how fast the control plane writes and starts, and how soon a change of traffic
//! is in force.
//!
//! - `writes_per_s`: acknowledged `CreateVersion` calls of 1, 8 and 64 writers, against raw SQLite that
//!   runs the same transaction (`bench_control/writes.rs`);
//! - `start_…_ms`: from the start of the process to its first answer, with 100, 1 000 and 10 000 services
//!   in the database, the last with 100 000 versions (`bench_control/starts.rs`);
//! - `change_in_force_ms`: from the acknowledged write of a traffic change to the first answer of the
//!   version that it names, through the proxy, both versions being warm.
//!
//! Times are of the caller, in the same run, over real processes and containers.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{self, Better, Row};
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

/// Measures the control plane's writes and starts, and the way of a change to the proxy.
#[derive(Parser)]
struct Args {
    /// Rounds of writes; in each, both sides with each number of writers.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each side in a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Starts with each number of services.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Traffic changes.
    #[arg(long, default_value_t = 50)]
    changes: usize,
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Beside the build, not under /tmp: that may be memory, where nothing is flushed.
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
    say(&format!(
        "{} traffic changes in force after the acknowledged write: median {:.1} ms, p99 {:.1} ms",
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
    say(&format!("\n{}", report::table(&rows)));
    say(&format!(
        "written to {}",
        report::write("control", &rows)?.display()
    ));
    Ok(())
}

/// Moves all traffic to and fro between two warm versions; times each change from its
/// acknowledgement to the first answer of the version it names.
async fn changes(cluster: &Cluster, count: usize) -> Result<Vec<Duration>> {
    let image = image::sample_app(cluster.docker()).await?;
    let mut api = cluster.api()?;
    let settings = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(600)),
        ..settings()
    };
    api.create_service(SERVICE, settings).await?;
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
        let wanted = change % 2 + 1;
        api.set_traffic(SERVICE, &[(i32::try_from(wanted)?, 100)])
            .await?;
        let begin = Instant::now();
        // One request after the other, without the pauses of `wait::until`: they would be measured.
        loop {
            let answer = connection.get(HOST, "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            if answer.text().trim() == wanted.to_string() {
                break;
            }
            ensure!(begin.elapsed() < SOON, "change {change} does not come");
        }
        times.push(begin.elapsed());
    }
    Ok(times)
}
