//! Repeated kill -9 under heavy writes on one database.
//!
//! Writers log their acknowledged writes, and each kill is followed by a comparison of the log with
//! the database. A seed determines the times of the kills; a failure prints it, and
//! `CLESS_TEST_SEED` replays it.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::{Api, settings};
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::ledger::{self, Acknowledged};

const ROUNDS: u64 = 8;
const WRITERS: usize = 12;
/// Time of the kill after the start of the writers: within a commit, within a batch or between two.
const KILL_AFTER_MS: std::ops::Range<u64> = 20..500;

type Log = Arc<Mutex<Vec<Acknowledged>>>;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_no_acknowledged_write_and_leaves_no_partial_one() -> Result<()> {
    let seed = match std::env::var("CLESS_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::rng().random(),
    };
    kill_repeatedly(seed)
        .await
        .with_context(|| format!("CLESS_TEST_SEED={seed} replays this run"))
}

async fn kill_repeatedly(seed: u64) -> Result<()> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cless.db");
    let log = Log::default();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut plane =
            ControlPlane::start(dir.path(), "control-plane", any_port(), &sqlite(&path)).await?;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (api, log) = (plane.api()?, Arc::clone(&log));
            let rng = SmallRng::seed_from_u64(rng.random());
            writers.spawn(write(api, format!("r{round}-w{writer}"), rng, log));
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(KILL_AFTER_MS))).await;
        plane.kill().await?;
        while let Some(ended) = writers.join_next().await {
            ended?;
        }
        let database = ledger::open(&path)?;
        ledger::check_consistent(&database)?;
        let log = log.lock().expect("no writer panicked");
        for write in log.iter() {
            ledger::check_kept(&database, write)?;
        }
        acknowledged = log.len();
    }
    ensure!(acknowledged > 50, "only {acknowledged} writes");
    // The control plane opens the database again and finds its stored routes up to date.
    let plane =
        ControlPlane::start(dir.path(), "control-plane", any_port(), &sqlite(&path)).await?;
    let log = std::fs::read_to_string(dir.path().join("control-plane.log"))?;
    ensure!(!log.contains("rebuilding them"), "{log}");
    plane.stop().await?;
    writeln!(
        std::io::stderr(),
        "{ROUNDS} kills, {acknowledged} acknowledged writes, none lost (seed {seed})"
    )?;
    Ok(())
}

/// Writes until the control plane is killed.
async fn write(mut api: Api, service: String, mut rng: SmallRng, log: Log) {
    let keep = |write| log.lock().expect("no writer panicked").push(write);
    let Ok(made) = api.create_service(&service, settings()).await else {
        return;
    };
    keep(Acknowledged::Service {
        service: service.clone(),
        revision: made.revision,
    });
    let mut newest = 0;
    loop {
        if newest > 0 && rng.random_bool(0.3) {
            let version = rng.random_range(1..=newest);
            let Ok(set) = api.set_traffic(&service, &[(version, 100)]).await else {
                return;
            };
            keep(Acknowledged::Traffic {
                service: service.clone(),
                number: set.revision,
                version,
                revision: set.feed_revision,
            });
        } else {
            let mark = format!("mark-{:016x}", rng.random::<u64>());
            // Rows differ in size; some span several pages.
            let padding = "x".repeat(rng.random_range(0..6000));
            let env = [("MARK", &*mark), ("PADDING", &*padding)];
            let Ok(made) = api.create_version(&service, "storm:1", &env).await else {
                return;
            };
            newest = made.number;
            keep(Acknowledged::Version {
                service: service.clone(),
                number: made.number,
                mark,
            });
        }
    }
}
