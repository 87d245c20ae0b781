//! Acknowledged `CreateVersion` calls per second, compared with the same transaction in raw SQLite.
//!
//! Both sides write to files in the same folder with the same schema, WAL and `synchronous=FULL`,
//! so that each acknowledged write is on disk. The raw side uses the SQLite library in this process
//! with prepared statements, without network, queue or validation. Its writers take turns on one
//! connection, which is the fastest way to run single transactions. Rounds alternate, and medians
//! are reported.
//!
//! `trusted_writes_per_s` has TLS and a token, compared with a control plane without, in the same
//! rounds.
//!
//! `refused_per_s` is the upper limit of one writer over the network: the same call with an invalid
//! specification, which the control plane rejects before any lookup.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::{Api, settings};
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use cless_tests::report::{Better, Row};
use cless_tests::stats::middle;
use rusqlite::{Connection, params};
use tokio::task::JoinSet;

const SERVICE: &str = "written";
/// A version of typical size.
const ENV: [(&str, &str); 4] = [
    ("GREETING", "hello"),
    ("DATABASE_URL", "postgres://app:secret@db.internal:5432/app"),
    ("LOG_LEVEL", "info"),
    ("FEATURES", "search,billing,export"),
];
const IMAGE: &str = "registry.example.com/team/app:2026-11-24";

/// Writers, case of the row, and its bar.
const CASES: [(usize, &str, Option<f64>); 3] = [
    (1, "1 writer", Some(0.8)),
    (8, "8 writers", None),
    (64, "64 writers", Some(0.8)),
];

/// TLS and a token may cost a tenth.
const TRUSTED_BAR: f64 = 1.0 / 1.1;

/// Measures all cases in `rounds` rounds; each side runs for `each`.
pub(crate) async fn run(dir: &Path, rounds: usize, each: Duration) -> Result<Vec<Row>> {
    let raw = Arc::new(Mutex::new(Raw::prepare(dir).await?));
    let plane = ControlPlane::start(dir, "ours", any_port(), &sqlite(&dir.join("ours.db"))).await?;
    let trusted = sqlite(&dir.join("trusted.db"));
    let trusted = ControlPlane::start_trusted(dir, "trusted", any_port(), &trusted).await?;
    prepare(&plane).await?;
    prepare(&trusted).await?;
    let mut encrypted = vec![Vec::new(); CASES.len()];
    let mut rates = vec![(Vec::new(), Vec::new()); CASES.len()];
    let mut refused = Vec::new();
    for _ in 0..rounds {
        refused.push(refused_rate(&plane, each).await?);
        let measured = rates.iter_mut().zip(&mut encrypted);
        for ((writers, ..), ((ours, theirs), encrypted)) in CASES.iter().zip(measured) {
            ours.push(write_rate(&plane, *writers, each).await?);
            encrypted.push(write_rate(&trusted, *writers, each).await?);
            theirs.push(raw_write_rate(&raw, *writers, each).await?);
        }
    }
    plane.stop().await?;
    trusted.stop().await?;
    let encrypted = CASES.iter().zip(&encrypted).zip(&rates);
    let encrypted: Vec<Row> = encrypted
        .map(|(((_, case, _), trusted), (plain, _))| Row {
            case,
            metric: "trusted_writes_per_s",
            better: Better::Higher,
            ours: middle(trusted),
            reference: Some((middle(plain), "cless --insecure")),
            bar: Some(TRUSTED_BAR),
        })
        .collect();
    let alone = rates.first().map(|(_, theirs)| middle(theirs));
    let rows = CASES.iter().zip(rates);
    let mut rows: Vec<Row> = rows
        .map(|((_, case, bar), (ours, theirs))| Row {
            case,
            metric: "writes_per_s",
            better: Better::Higher,
            ours: middle(&ours),
            reference: Some((middle(&theirs), "raw SQLite")),
            bar: *bar,
        })
        .collect();
    rows.extend(encrypted);
    rows.push(Row {
        case: "1 writer",
        metric: "refused_per_s",
        better: Better::Higher,
        ours: middle(&refused),
        reference: alone.map(|rate| (rate, "raw SQLite's writes")),
        bar: None,
    });
    Ok(rows)
}

async fn prepare(plane: &ControlPlane) -> Result<()> {
    let mut api = plane.api()?;
    api.create_service(SERVICE, settings()).await?;
    api.create_version(SERVICE, IMAGE, &ENV).await?;
    Ok(())
}

async fn write_rate(plane: &ControlPlane, writers: usize, each: Duration) -> Result<f64> {
    // Several calls share a connection, as with real clients.
    let mut connections: Vec<Api> = Vec::new();
    for _ in 0..writers.min(8) {
        connections.push(plane.api()?);
    }
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for writer in 0..writers {
        let mut api = connections[writer % connections.len()].clone();
        tasks.spawn(async move {
            let mut written = 0_u64;
            while begun.elapsed() < each {
                api.create_version(SERVICE, IMAGE, &ENV).await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(one) = tasks.join_next().await {
        written += one??;
    }
    Ok(rate(written, begun.elapsed()))
}

async fn refused_rate(plane: &ControlPlane, each: Duration) -> Result<f64> {
    let mut api = plane.api()?;
    let begun = Instant::now();
    let mut refused = 0;
    while begun.elapsed() < each {
        let outcome = api.create_version(SERVICE, "", &ENV).await;
        ensure!(outcome.is_err(), "a version without an image was created");
        refused += 1;
    }
    Ok(rate(refused, begun.elapsed()))
}

async fn raw_write_rate(raw: &Arc<Mutex<Raw>>, writers: usize, each: Duration) -> Result<f64> {
    let raw = Arc::clone(raw);
    tokio::task::spawn_blocking(move || {
        let (written, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    while begun.elapsed() < each {
                        let done = raw.lock().is_ok_and(|mut raw| raw.write().is_ok());
                        if !done {
                            failed.store(true, Ordering::Relaxed);
                            return;
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        ensure!(!failed.into_inner(), "a raw write failed");
        Ok(rate(written.into_inner(), begun.elapsed()))
    })
    .await?
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of writes are far below 2^52"
)]
fn rate(written: u64, took: Duration) -> f64 {
    written as f64 / took.as_secs_f64()
}

/// SQLite with the statements of a `CreateVersion`.
struct Raw {
    database: Connection,
    /// Specification as stored by the control plane.
    spec: String,
    digest: Vec<u8>,
    next: u64,
}

impl Raw {
    async fn prepare(dir: &Path) -> Result<Self> {
        let plane =
            ControlPlane::start(dir, "raw", any_port(), &sqlite(&dir.join("raw.db"))).await?;
        prepare(&plane).await?;
        plane.stop().await?;
        let database = Connection::open(dir.join("raw.db"))?;
        let mode: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        ensure!(mode == "wal", "{mode}");
        database.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
        let spec = database.query_row("SELECT spec FROM versions", [], |row| row.get(0))?;
        let digest = database.query_row("SELECT digest FROM feed_state", [], |row| row.get(0))?;
        Ok(Self {
            database,
            spec,
            digest,
            next: 0,
        })
    }

    fn write(&mut self) -> Result<()> {
        self.next += 1;
        let uid = format!("{:08x}-0000-7000-8000-{:012x}", self.next >> 16, self.next);
        let now = 1_795_527_640_000_000_i64;
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<()> {
            self.database.prepare_cached(sql)?.execute(values)?;
            Ok(())
        };
        run("BEGIN IMMEDIATE", &[])?;
        let revision: i64 = self
            .database
            .prepare_cached(
                "SELECT id, cluster, epoch, revision, compacted_revision, digest FROM feed_state WHERE id = ?",
            )?
            .query_row([1], |row| row.get("revision"))?;
        let revision = revision + 1;
        let (service, number): (String, i64) = self
            .database
            .prepare_cached(
                "UPDATE services SET next_version = next_version + 1, revision = ? WHERE name = ? RETURNING \
                 uid, name, hosts, settings, labels, etag, create_time, update_time, revision, next_version, \
                 traffic_revision, traffic_time, traffic_feed_revision, targets, slots",
            )?
            .query_row(params![revision, SERVICE], |row| {
                Ok((row.get("uid")?, row.get("next_version")?))
            })?;
        run(
            "INSERT INTO versions (uid, service_uid, number, spec, image_digest, etag, create_time, verification, verify_deadline, \
             carried_traffic, resolved_image, image_generation) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, 0)",
            params![
                uid,
                service,
                number - 1,
                self.spec,
                None::<String>,
                1,
                now,
                None::<String>,
                None::<i64>
            ],
        )?;
        let stepped: i64 = self
            .database
            .prepare_cached(
                "UPDATE feed_state SET revision = revision + 1, digest = ? WHERE id = ? RETURNING \
                 id, cluster, epoch, revision, compacted_revision, digest",
            )?
            .query_row(params![self.digest, 1], |row| row.get("revision"))?;
        ensure!(stepped == revision, "another writer changed the revision");
        run(
            "INSERT INTO route_changes (revision, service_uid, op, digest, time) VALUES (?, ?, ?, ?, ?)",
            params![revision, service, "none", self.digest, now],
        )?;
        run("COMMIT", &[]).context("cannot commit")
    }
}
