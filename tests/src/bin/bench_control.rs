//! `cless-bench-control`: what the control plane costs beside the request path.
//!
//! - `start_1000_services_ms`: from the start of the process to its first answer, with 1 000 services
//!   of one version each in the database;
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
use cless_tests::{image, wait};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SERVICE: &str = "change";
const HOST: &str = "change.localhost";
const SOON: Duration = Duration::from_secs(30);
/// Writers that fill the database at once.
const WRITERS: usize = 16;

/// Measures the control plane's start and the way of a change to the proxy.
#[derive(Parser)]
struct Args {
    /// Services in the database when it starts.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Starts.
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
    let mut cluster = Cluster::start(1).await?;
    let changes = changes(&cluster, args.changes).await?;
    say(&format!(
        "{} traffic changes in force after the acknowledged write: median {:.1} ms, p99 {:.1} ms",
        changes.len(),
        millis(median(&changes)),
        millis(quantile(&changes, 0.99)),
    ));
    fill(&cluster, args.services).await?;
    let mut starts = Vec::with_capacity(args.starts);
    for _ in 0..args.starts {
        cluster.kill_control_plane().await?;
        let begin = Instant::now();
        cluster.start_control_plane().await?;
        let mut api = cluster.api()?;
        wait::until("the control plane answers", SOON, async || {
            Ok(api.check_propagation(0).await.ok())
        })
        .await?;
        starts.push(begin.elapsed());
    }
    say(&format!(
        "{} starts with {} services, to the first answer: median {:.0} ms",
        starts.len(),
        args.services,
        millis(median(&starts)),
    ));
    cluster.finish().await?;

    let rows = [
        Row {
            case: "1000 services",
            metric: "start_1000_services_ms",
            better: Better::Lower,
            ours: millis(median(&starts)),
            reference: None,
            bar: Some(1000.0),
        },
        Row {
            case: "one node",
            metric: "change_in_force_ms",
            better: Better::Lower,
            ours: millis(quantile(&changes, 0.99)),
            reference: None,
            bar: Some(100.0),
        },
    ];
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

/// Makes services with one version and all traffic on it.
async fn fill(cluster: &Cluster, services: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut api = cluster.api()?;
        writers.spawn(async move {
            for number in (writer..services).step_by(WRITERS) {
                let name = format!("filled-{number}");
                api.create_service(&name, settings()).await?;
                api.create_version(&name, "filled:1", &[]).await?;
                api.set_traffic(&name, &[(1, 100)]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}
