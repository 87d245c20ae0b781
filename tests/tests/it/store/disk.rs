//! A disk that is full, read-only or damaged, and a database of a newer program: the control plane says
//! what to do, and nodes go on serving all the while.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{duration, settings};
use cless_tests::control_plane::{ControlPlane, Follower, any_port, run, run_command, sqlite};
use cless_tests::{engine, http_client, wait};
use std::time::Duration;

use crate::{SOON, sample};

/// A small disk of its own; unmounted when dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir(at)?;
        let size = format!("size={size},mode=700");
        command(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &size,
                "cless-test",
                &at.display().to_string(),
            ],
        )?;
        Ok(Self { at: at.to_owned() })
    }

    fn remount(&self, how: &str) -> Result<()> {
        let how = format!("remount,{how}");
        command("mount", &["-o", &how, &self.at.display().to_string()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failed test something may still use it.
        let _ = command("umount", &["-l", &self.at.display().to_string()]);
    }
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    let said = Command::new(program)
        .args(args)
        .output()
        .with_context(|| program.to_owned())?;
    ensure!(
        said.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

/// Asserts that a start is refused, and what is said.
async fn refused(database: &str, remedy: &str) -> Result<()> {
    let (code, said) = run(&[
        ("--listen", &any_port().to_string()),
        ("--database-url", database),
    ])
    .await?;
    ensure!(code == Some(1), "it ended with {code:?}: {said}");
    ensure!(said.contains(remedy), "no word of `{remedy}`: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_the_disk_is_told_with_a_remedy_and_nodes_serve_on() -> Result<()> {
    let docker = engine::connect().await?;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let disk = Disk::mount(&dir.path().join("disk"), "2M")?;
    let path = disk.at.join("cless.db");
    let database = sqlite(&path);

    let plane = ControlPlane::start(dir.path(), "plane", any_port(), &database).await?;
    let (grpc, mut api) = (plane.grpc, plane.api()?);
    let cluster = api.cluster_id().await?;
    let node = Follower::start(dir.path(), "node-0", &[grpc]).await?;
    let answers = async || -> Result<()> {
        let answer = http_client::get(node.listen, "hello.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    };
    let settings = v1::ServiceSettings {
        idle_timeout: duration(Duration::from_secs(600)),
        ..settings()
    };
    api.create_service("hello", settings.clone()).await?;
    api.create_version("hello", sample().await?, &[]).await?;
    api.set_traffic("hello", &[(1, 100)]).await?;
    wait::until("the service answers", SOON, async || {
        Ok(answers().await.ok())
    })
    .await?;

    // Full: what fits no more is refused whole, with the reason; room again, and writes go on.
    let filler = disk.at.join("filler");
    let _ = std::fs::write(&filler, vec![0; 4 << 20]);
    let padding = "x".repeat(12_000);
    let mut written = 1;
    let full = loop {
        match api
            .create_version("hello", "next:1", &[("P", &padding)])
            .await
        {
            Ok(made) => written = made.number,
            Err(error) => break error,
        }
        ensure!(written < 200, "it is never full");
    };
    let status = full.downcast_ref::<tonic::Status>().context("a status")?;
    ensure!(status.code() == tonic::Code::Unavailable, "{status}");
    ensure!(status.message().contains("free space"), "{status}");
    answers().await?;
    std::fs::remove_file(&filler)?;
    let made = api.create_version("hello", "next:1", &[]).await?;
    ensure!(
        made.number == written + 1,
        "{} after {written}",
        made.number
    );

    // A backup while it runs, for later.
    let backup = dir.path().join("backup");
    let (code, said) = run_command(
        Some("backup"),
        &[
            ("--database-url", &database),
            ("--to", &backup.display().to_string()),
        ],
    )
    .await?;
    ensure!(code == Some(0), "{said}");
    // A restore under a control plane that runs is refused, whatever is forced.
    let restore = [
        ("--database-url", &*database),
        ("--from", &backup.display().to_string()),
        ("--force", ""),
    ];
    let (code, said) = run_command(Some("restore"), &restore).await?;
    ensure!(
        code == Some(1) && said.contains("stop the control plane"),
        "{said}"
    );
    plane.stop().await?;
    answers().await?;

    // Read-only.
    disk.remount("ro")?;
    refused(&database, "give this user the right").await?;
    answers().await?;
    disk.remount("rw,size=8M")?;

    // Of a newer program.
    let newer = rusqlite::Connection::open(&path)?;
    newer.execute(
        "INSERT INTO seaql_migrations VALUES ('m9999_future', 0)",
        [],
    )?;
    drop(newer);
    refused(&database, "newer cless").await?;
    answers().await?;

    // Damaged, from the second page on.
    let mut bytes = std::fs::read(&path)?;
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes)?;
    refused(&database, "cless-control-plane restore").await?;
    answers().await?;

    // Restored: another epoch, which the node follows, and it served all the while.
    let (code, said) = run_command(Some("restore"), &restore).await?;
    ensure!(code == Some(0), "{said}");
    let plane = ControlPlane::start(dir.path(), "plane", grpc, &database).await?;
    let mut api = plane.api()?;
    ensure!(api.cluster_id().await? == cluster, "another cluster");
    wait::until("the node has the restored table", SOON, async || {
        let answer = api.check_propagation(0).await?;
        Ok((answer.nodes_applied == 1 && answer.pending.is_empty()).then_some(()))
    })
    .await?;
    answers().await?;
    // The acknowledged versions of before the backup are there.
    let version = api.version("hello", made.number).await?;
    ensure!(version.number == made.number);
    node.stop().await?;
    plane.stop().await?;
    let left = engine::containers(&docker, &[("cless.cluster", &cluster)]).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
