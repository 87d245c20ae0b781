//! The cold start of a quiet service beside a storm of starts, compared with the same one alone.
//!
//! - `wake80`: one client wakes eighty sleeping services at once; the quiet service has another
//!   client.
//! - `crash20`: twenty services with `min_instances` exit at their start, again and again.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, bail};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis};
use cless_tests::wait;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{IdleService, SETTLE};

const SLEEPING: usize = 80;
const CRASHING: usize = 20;
/// Another address of this machine than that of the quiet client.
const STORM_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Time from the beginning of a storm to the request, in which all permits are taken.
const UNDER_WAY: Duration = Duration::from_millis(400);
const CLEARED: Duration = Duration::from_secs(120);

pub(crate) async fn run(
    cluster: &Cluster,
    quiet: &IdleService,
    image: &str,
    rounds: usize,
) -> Result<Vec<Row>> {
    print_line(&format!(
        "\nquiet_beside_storm: {rounds} rounds beside {SLEEPING} wakes and beside {CRASHING} crash loops"
    ));
    let sleeping: Vec<String> = (0..SLEEPING).map(|n| format!("sleeps{n}")).collect();
    for service in &sleeping {
        // Longer than the storm, so that no container is removed meanwhile.
        let settings = v1::ServiceSettings {
            idle_timeout: duration(Duration::from_secs(15)),
            ..settings()
        };
        cluster.serve(service, image, settings).await?;
    }
    let (mut alone, mut wakes, mut crashes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        quiet.wait_removed(cluster).await?;
        alone.push(quiet.cold_request(cluster, 0).await?);
        quiet.wait_removed(cluster).await?;
        wakes.push(beside_wakes(cluster, quiet, &sleeping).await?);
        wait_cleared(cluster).await?;
        alone.push(quiet.cold_request(cluster, 0).await?);
        quiet.wait_removed(cluster).await?;
        crashes.push(beside_crashes(cluster, quiet, image).await?);
    }
    for (what, times) in [("alone", &alone), ("wake80", &wakes), ("crash20", &crashes)] {
        let times: Vec<_> = times
            .iter()
            .map(|time| format!("{:.0}", millis(*time)))
            .collect();
        print_line(&format!("  {what} ms: {}", times.join(", ")));
    }
    let alone = millis(median(&alone));
    let row = |case, times: &[Duration]| Row {
        case,
        metric: "quiet_beside_storm",
        better: Better::Lower,
        ours: millis(median(times)),
        reference: Some((alone, "the same cold start alone")),
        bar: Some(2.0),
    };
    Ok(vec![row("wake80", &wakes), row("crash20", &crashes)])
}

/// The time of the quiet service while one client wakes the others.
async fn beside_wakes(
    cluster: &Cluster,
    quiet: &IdleService,
    sleeping: &[String],
) -> Result<Duration> {
    let mut requests = JoinSet::new();
    for service in sleeping {
        let mut connection = Connection::open_from(STORM_CLIENT, cluster.node(0).listen).await?;
        let host = Cluster::host(service);
        requests.spawn(async move { connection.get(&host, "/").await });
    }
    sleep(UNDER_WAY).await;
    let took = quiet.cold_request(cluster, 0).await?;
    let (mut served, mut refused) = (0, 0);
    while let Some(response) = requests.join_next().await {
        let response = response??;
        match response.status.as_u16() {
            200 => served += 1,
            503 if response.header("retry-after").is_some() => refused += 1,
            _ => bail!("{response:?}"),
        }
    }
    print_line(&format!("  {served} woken, {refused} refused"));
    Ok(took)
}

/// The time of the quiet service while others crash.
async fn beside_crashes(cluster: &Cluster, quiet: &IdleService, image: &str) -> Result<Duration> {
    let crashing: Vec<String> = (0..CRASHING).map(|n| format!("crashes{n}")).collect();
    let mut api = cluster.api()?;
    for service in &crashing {
        let settings = v1::ServiceSettings {
            min_instances: Some(1),
            ..settings()
        };
        api.create_service(service, settings).await?;
        let env = [("EXIT_AT_START", "1")];
        api.create_version(service, image, &env).await?;
    }
    let mut revision = 0;
    for service in &crashing {
        revision = api.set_traffic(service, &[(1, 100)]).await?.feed_revision;
    }
    cluster.wait_propagated(revision).await?;
    sleep(UNDER_WAY).await;
    let took = quiet.cold_request(cluster, 0).await?;
    for service in &crashing {
        api.delete_service(service).await?;
    }
    wait_cleared(cluster).await?;
    Ok(took)
}

/// Waits until the cluster has no instance.
async fn wait_cleared(cluster: &Cluster) -> Result<()> {
    wait::until("the storm is over", CLEARED, async || {
        Ok(cluster.instances().await?.is_empty().then_some(()))
    })
    .await?;
    sleep(SETTLE).await;
    Ok(())
}
