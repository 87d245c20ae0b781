//! Full, read-only or damaged disks, and a database of a newer program: the control plane reports a
//! remedy, and nodes keep serving.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, Follower, any_port, run, run_command, sqlite};
use cless_tests::{engine, http_client, wait};

use crate::{SOON, sample};

/// A small separate disk; unmounted when dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir(at)?;
        let size = format!("size={size},mode=700");
        let folder = at.display().to_string();
        command(
            "mount",
            &["-t", "tmpfs", "-o", &size, "cless-test", &folder],
        )?;
        Ok(Self { at: at.to_owned() })
    }

    fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        command("mount", &["-o", &options, &self.at.display().to_string()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failed test a process may still use the disk.
        let _ = command("umount", &["-l", &self.at.display().to_string()]);
    }
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Checks that a control plane does not start and reports `remedy`.
async fn check_start_fails(database: &str, remedy: &str) -> Result<()> {
    let (code, stderr) = run(&[
        ("--listen", &any_port().to_string()),
        ("--database-url", database),
        ("--insecure", ""),
    ])
    .await?;
    ensure!(code == Some(1), "it exited with {code:?}: {stderr}");
    ensure!(stderr.contains(remedy), "no `{remedy}` in: {stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_disk_are_reported_with_a_remedy_while_nodes_keep_serving() -> Result<()> {
    let docker = engine::connect().await?;
    let dir = tempfile::Builder::new().prefix("cless-test-").tempdir()?;
    let disk = Disk::mount(&dir.path().join("disk"), "2M")?;
    let path = disk.at.join("cless.db");
    let database = sqlite(&path);

    let plane = ControlPlane::start(dir.path(), "plane", any_port(), &database).await?;
    let (grpc, mut api) = (plane.grpc, plane.api()?);
    let cluster = api.cluster_id().await?;
    let node = Follower::start(dir.path(), "node-0", &[grpc]).await?;
    let check_serves = async || -> Result<()> {
        let response = http_client::get(node.listen, "hello.localhost", "/").await?;
        ensure!(response.status == 200, "{response:?}");
        Ok(())
    };
    api.create_service("hello", settings()).await?;
    api.create_version("hello", sample().await?, &[]).await?;
    api.set_traffic("hello", &[(1, 100)]).await?;
    wait::until("the service serves", SOON, async || {
        Ok(check_serves().await.ok())
    })
    .await?;

    // Full disk: a write fails completely with the reason; writes succeed once there is space.
    let filler = disk.at.join("filler");
    let _ = std::fs::write(&filler, vec![0; 4 << 20]);
    let padding = "x".repeat(12_000);
    let mut written = 1;
    let full = loop {
        match api
            .create_version("hello", "next:1", &[("P", &padding)])
            .await
        {
            Ok(created) => written = created.number,
            Err(error) => break error,
        }
        ensure!(written < 200, "the disk is never full");
    };
    let status = full
        .downcast_ref::<tonic::Status>()
        .context("not a status")?;
    ensure!(status.code() == tonic::Code::Unavailable, "{status}");
    ensure!(status.message().contains("free space"), "{status}");
    check_serves().await?;
    std::fs::remove_file(&filler)?;
    let last = api.create_version("hello", "next:1", &[]).await?.number;
    ensure!(last == written + 1, "{last} after {written}");

    // Backup of the running control plane.
    let backup = dir.path().join("backup");
    let (code, stderr) = run_command(
        Some("backup"),
        &[
            ("--database-url", &database),
            ("--to", &backup.display().to_string()),
        ],
    )
    .await?;
    ensure!(code == Some(0), "{stderr}");
    // A restore fails while the control plane runs, even with --force.
    let restore = [
        ("--database-url", &*database),
        ("--from", &backup.display().to_string()),
        ("--force", ""),
    ];
    let (code, stderr) = run_command(Some("restore"), &restore).await?;
    ensure!(
        code == Some(1) && stderr.contains("stop the control plane"),
        "{stderr}"
    );
    plane.stop().await?;
    check_serves().await?;

    // Read-only.
    disk.remount("ro")?;
    check_start_fails(&database, "give this user the right").await?;
    check_serves().await?;
    disk.remount("rw,size=8M")?;

    // Database of a newer program.
    let newer = rusqlite::Connection::open(&path)?;
    newer.execute(
        "INSERT INTO seaql_migrations VALUES ('m9999_future', 0)",
        [],
    )?;
    drop(newer);
    check_start_fails(&database, "newer cless").await?;
    check_serves().await?;

    // Damaged from the second page on.
    let mut bytes = std::fs::read(&path)?;
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes)?;
    check_start_fails(&database, "cless-control-plane restore").await?;
    check_serves().await?;

    // Restored: the node follows the new epoch.
    let (code, stderr) = run_command(Some("restore"), &restore).await?;
    ensure!(code == Some(0), "{stderr}");
    let plane = ControlPlane::start(dir.path(), "plane", grpc, &database).await?;
    let mut api = plane.api()?;
    let restored = api.cluster_id().await?;
    ensure!(restored == cluster, "{restored}, not {cluster}");
    wait::until("the node has the restored table", SOON, async || {
        let progress = api.check_propagation(0).await?;
        Ok((progress.nodes_applied == 1 && progress.pending.is_empty()).then_some(()))
    })
    .await?;
    check_serves().await?;
    // Versions acknowledged before the backup exist.
    let version = api.version("hello", last).await?;
    ensure!(version.number == last);
    node.stop().await?;
    plane.stop().await?;
    let left = engine::containers(&docker, &[("cless.cluster", &cluster)]).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
