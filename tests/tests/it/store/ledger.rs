//! Invariants of a database, also after a kill, checked with plain SQL and without code of cless.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

/// An acknowledged write.
#[derive(Debug, Clone)]
pub(super) enum Acknowledged {
    Service {
        service: String,
        revision: i64,
    },
    /// A version with `mark` in its environment.
    Version {
        service: String,
        number: i32,
        mark: String,
    },
    Traffic {
        service: String,
        number: i32,
        version: i32,
        revision: i64,
    },
}

/// Opens the file of a killed program; SQLite recovers it from its WAL.
pub(super) fn open(path: &Path) -> Result<Connection> {
    Ok(Connection::open(path)?)
}

/// Checks that no write is partial: each write of `kill.rs` adds one revision and one row.
pub(super) fn check_consistent(database: &Connection) -> Result<()> {
    let text = |sql: &str| -> Result<String> { Ok(database.query_row(sql, [], |row| row.get(0))?) };
    let count = |sql: &str| -> Result<i64> { Ok(database.query_row(sql, [], |row| row.get(0))?) };
    ensure!(text("PRAGMA integrity_check")? == "ok", "damaged");
    let broken: Option<String> = database
        .query_row("PRAGMA foreign_key_check", [], |row| row.get(0))
        .optional()?;
    ensure!(broken.is_none(), "a row of {broken:?} has no service");

    let revision = count("SELECT revision FROM feed_state")?;
    let rows = count(
        "SELECT (SELECT count(*) FROM services) + (SELECT count(*) FROM versions) + (SELECT count(*) FROM traffic_revisions)",
    )?;
    ensure!(revision == rows, "{revision} revisions, but {rows} rows");
    let first = count("SELECT min(revision) FROM route_changes")?;
    let last = count("SELECT max(revision) FROM route_changes")?;
    let all = count("SELECT count(*) FROM route_changes")?;
    ensure!(
        last == revision,
        "the log ends at {last}, the head is {revision}"
    );
    ensure!(all == last - first + 1, "the log has gaps");
    ensure!(
        count(
            "SELECT count(*) FROM services s WHERE next_version - 1 <> (SELECT count(*) FROM versions v WHERE v.service_uid = s.uid)"
        )? == 0,
        "the version count of a service is wrong"
    );
    ensure!(
        count(
            "SELECT count(*) FROM services s WHERE traffic_revision <> (SELECT count(*) FROM traffic_revisions t WHERE t.service_uid = s.uid)"
        )? == 0,
        "the traffic revision count of a service is wrong"
    );
    ensure!(
        count(
            "SELECT count(*) FROM services s WHERE NOT EXISTS (SELECT 1 FROM hosts h WHERE h.service_uid = s.uid) OR NOT EXISTS (SELECT 1 FROM routes r WHERE r.service_uid = s.uid)"
        )? == 0,
        "a service has no host or no route"
    );
    check_digest(database)
}

/// Checks the digest of each route, and that the digest of the head is their sum.
fn check_digest(database: &Connection) -> Result<()> {
    let mut sum = [0u8; 32];
    let mut routes = database.prepare("SELECT body, digest FROM routes")?;
    let mut rows = routes.query([])?;
    while let Some(row) = rows.next()? {
        let (body, digest): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let computed = Sha256::digest(&body);
        ensure!(computed[..] == digest[..], "a route is not its digest");
        let mut carry = 0u16;
        for (into, add) in sum.iter_mut().zip(computed).rev() {
            let total = u16::from(*into) + u16::from(add) + carry;
            *into = total as u8;
            carry = total >> 8;
        }
    }
    let (head, logged): (Vec<u8>, Vec<u8>) = database.query_row(
        "SELECT s.digest, c.digest FROM feed_state s JOIN route_changes c ON c.revision = s.revision",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    ensure!(
        head == sum && logged == sum,
        "the digest is not of the table"
    );
    Ok(())
}

/// Checks that an acknowledged write is in the database.
pub(super) fn check_kept(database: &Connection, write: &Acknowledged) -> Result<()> {
    let found: Option<i64> = match write {
        Acknowledged::Service { service, revision } => database.query_row(
            "SELECT 1 FROM services s JOIN route_changes c ON c.service_uid = s.uid AND c.revision = ?2 WHERE s.name = ?1",
            params![service, revision],
            |row| row.get(0),
        ),
        Acknowledged::Version { service, number, mark } => database.query_row(
            "SELECT 1 FROM versions v JOIN services s ON s.uid = v.service_uid WHERE s.name = ?1 AND v.number = ?2 AND instr(v.spec, ?3) > 0",
            params![service, number, mark],
            |row| row.get(0),
        ),
        Acknowledged::Traffic { service, number, version, revision } => database.query_row(
            "SELECT 1 FROM traffic_revisions t JOIN services s ON s.uid = t.service_uid WHERE s.name = ?1 AND t.number = ?2 \
             AND t.targets LIKE '%\"version\":' || ?3 || ',%' AND t.feed_revision = ?4",
            params![service, number, version, revision],
            |row| row.get(0),
        ),
    }
    .optional()?;
    found.with_context(|| format!("lost: {write:?}"))?;
    Ok(())
}
