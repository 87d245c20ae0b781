//! Time from process start to the first response, with many services in the database.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use cless_tests::report::{Better, Row};
use cless_tests::stats::{median, millis};
use rusqlite::{Connection, params};

/// Services, versions per service, case and metric of the row, and its bar in milliseconds.
const CASES: [(u32, u32, &str, &str, Option<f64>); 3] = [
    (100, 1, "100 services", "start_100_services_ms", None),
    (
        1_000,
        1,
        "1000 services",
        "start_1000_services_ms",
        Some(1_000.0),
    ),
    (
        10_000,
        10,
        "100000 versions",
        "start_10000_services_ms",
        Some(2_000.0),
    ),
];

pub(crate) async fn run(dir: &Path, starts: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (services, versions, case, metric, bar) in CASES {
        let path = dir.join(format!("start-{services}.db"));
        fill(dir, &path, services, versions).await?;
        let mut times = Vec::with_capacity(starts);
        for _ in 0..starts {
            times.push(start(dir, &path, services).await?);
        }
        rows.push(Row {
            case,
            metric,
            better: Better::Lower,
            ours: millis(median(&times)),
            reference: None,
            bar,
        });
    }
    Ok(rows)
}

async fn start(dir: &Path, path: &Path, services: u32) -> Result<Duration> {
    let begun = Instant::now();
    let plane = ControlPlane::start(dir, "start", any_port(), &sqlite(path)).await?;
    let head = plane.api()?.check_propagation(0).await?.revision;
    let took = begun.elapsed();
    ensure!(head > 0, "no revision with {services} services");
    plane.stop().await?;
    Ok(took)
}

/// Creates one service through the API and copies its rows for the others. The first start builds
/// their routes, as after an upgrade.
async fn fill(dir: &Path, path: &Path, services: u32, versions: u32) -> Result<()> {
    let plane = ControlPlane::start(dir, "fill", any_port(), &sqlite(path)).await?;
    let mut api = plane.api()?;
    api.create_service("model", settings()).await?;
    for _ in 0..versions {
        let env = [("GREETING", "hello"), ("LOG_LEVEL", "info")];
        api.create_version("model", "registry.example.com/team/app:1", &env)
            .await?;
    }
    api.set_traffic("model", &[(1, 100)]).await?;
    plane.stop().await?;
    let database = Connection::open(path)?;
    database.execute_batch("PRAGMA foreign_keys = ON; BEGIN IMMEDIATE")?;
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
         INSERT INTO services SELECT printf('%08x-0000-7000-8000-000000000000', i), 's' || i, hosts, settings, labels, etag, \
         create_time, update_time, revision, next_version, traffic_revision, traffic_time, traffic_feed_revision, targets, slots \
         FROM n, services WHERE name = 'model'",
        params![services],
    )?;
    database.execute_batch(
        "INSERT INTO versions SELECT substr(s.uid, 1, 24) || printf('%012x', v.number), s.uid, v.number, v.spec, v.image_digest, \
         v.etag, v.create_time, v.verification, v.verify_deadline FROM services s, versions v WHERE s.name <> 'model' \
         AND v.service_uid = (SELECT uid FROM services WHERE name = 'model'); \
         INSERT INTO traffic_revisions SELECT s.uid, t.number, t.targets, t.actor, t.reason, t.time, t.rolled_back_from, \
         t.feed_revision FROM services s, traffic_revisions t WHERE s.name <> 'model'; \
         COMMIT",
    )?;
    let count = |sql: &str| -> Result<u32> { Ok(database.query_row(sql, [], |row| row.get(0))?) };
    ensure!(count("SELECT count(*) FROM services")? == services);
    ensure!(count("SELECT count(*) FROM versions")? == services * versions);
    drop(database);
    start(dir, path, services).await?;
    let database = Connection::open(path)?;
    let routes: u32 = database.query_row("SELECT count(*) FROM routes", [], |row| row.get(0))?;
    ensure!(
        routes == services,
        "{routes} routes for {services} services"
    );
    Ok(())
}
