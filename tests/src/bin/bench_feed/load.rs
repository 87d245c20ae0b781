//! Routes, and changes of them at a steady rate.

use std::time::Duration;

use anyhow::{Result, ensure};
use cless_tests::cluster::{Api, Cluster, settings};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Concurrent writers while filling the database.
const WRITERS: usize = 32;
/// Writers of the steady load: with several of them, a slow response does not delay the next
/// change.
const CHANGERS: usize = 8;

/// An acknowledged change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) revision: i64,
    pub(crate) acknowledged: Instant,
}

fn service(number: usize) -> String {
    format!("bench-{number}")
}

/// Creates services `from` to `to`, each with two versions and all traffic on the first.
pub(crate) async fn fill(cluster: &Cluster, from: usize, to: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut api = cluster.api()?;
        writers.spawn(async move {
            for number in (from + writer..to).step_by(WRITERS) {
                let name = service(number);
                api.create_service(&name, settings()).await?;
                for version in ["1", "2"] {
                    let env = [("VERSION", version)];
                    api.create_version(&name, "registry.example/team/app:1", &env)
                        .await?;
                }
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

/// Changes the traffic of the first `routes` services at `rate` changes per second. The schedule is
/// fixed: late changes are not skipped.
pub(crate) async fn change(
    cluster: &Cluster,
    routes: usize,
    rate: usize,
    time: Duration,
) -> Result<Vec<Write>> {
    let mut changers = JoinSet::new();
    let total = rate * usize::try_from(time.as_secs())?;
    for changer in 0..CHANGERS {
        let mut api = cluster.api()?;
        changers.spawn(async move {
            let mut writes = Vec::new();
            let step = Duration::from_secs(1).mul_f64(CHANGERS as f64 / rate as f64);
            let mut due = interval(step);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in (changer..total).step_by(CHANGERS) {
                due.tick().await;
                writes.push(write(&mut api, number, routes).await?);
            }
            anyhow::Ok(writes)
        });
    }
    let mut all = Vec::with_capacity(total);
    while let Some(writes) = changers.join_next().await {
        all.extend(writes??);
    }
    ensure!(all.len() == total, "a change is missing");
    Ok(all)
}

/// Writes a change that always changes the route: 1 to 99 percent, never the same twice in a row.
async fn write(api: &mut Api, number: usize, routes: usize) -> Result<Write> {
    let (name, round) = (service(number % routes), number / routes);
    let share = u32::try_from((number + round) % 99)? + 1;
    let split = [(1, share), (2, 100 - share)];
    let revision = api.set_traffic(&name, &split).await?.feed_revision;
    Ok(Write {
        revision,
        acknowledged: Instant::now(),
    })
}
