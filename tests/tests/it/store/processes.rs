//! Two processes on one SQLite file: none is ever told that the other is busy.

use anyhow::{Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use tokio::task::JoinSet;

use super::ledger;

const WRITERS: usize = 8;
const EACH: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_to_one_file_and_neither_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cless.db");
    let database = sqlite(&path);
    // At once: one of them makes the schema, the other waits.
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
            for _ in 0..EACH {
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
    ledger::assert_whole(&database)?;
    let revision: i64 =
        database.query_row("SELECT revision FROM feed_state", [], |row| row.get(0))?;
    let wanted = WRITERS * 2 * (EACH + 1);
    ensure!(
        usize::try_from(revision)? == wanted,
        "{revision} of {wanted}"
    );
    Ok(())
}
