//! Two processes on one SQLite file: neither receives an error about the other's lock.

use anyhow::{Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use tokio::task::JoinSet;

use super::ledger;

const WRITERS: usize = 8;
const VERSIONS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_to_one_file_without_errors() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cless.db");
    let database = sqlite(&path);
    // Both start at the same time: one creates the schema, the other waits.
    let (one, two) = tokio::join!(
        ControlPlane::start(dir.path(), "one", any_port(), &database),
        ControlPlane::start(dir.path(), "two", any_port(), &database),
    );
    let planes = [one?, two?];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS * planes.len() {
        let mut api = planes[writer % planes.len()].api()?;
        writers.spawn(async move {
            let service = format!("w{writer}");
            api.create_service(&service, settings()).await?;
            for _ in 0..VERSIONS {
                api.create_version(&service, "hello:1", &[]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    for plane in planes {
        plane.stop().await?;
    }
    let database = ledger::open(&path)?;
    ledger::check_consistent(&database)?;
    let revision: i64 =
        database.query_row("SELECT revision FROM feed_state", [], |row| row.get(0))?;
    let expected = WRITERS * 2 * (VERSIONS + 1);
    ensure!(
        usize::try_from(revision)? == expected,
        "{revision} of {expected}"
    );
    Ok(())
}
