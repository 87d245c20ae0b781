//! Acknowledged writes are on disk: the test checks the order of system calls in a trace.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use cless_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A marker in the environment of the version, and so in its row.
const MARK: &str = "mark-of-the-traced-write";
/// A name that only the response contains.
const NAME: &str = "services/traced/versions/1";

#[tokio::test(flavor = "multi_thread")]
async fn the_response_to_a_write_is_sent_after_its_fsync() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let database = sqlite(&dir.path().join("cless.db"));
    let plane = ControlPlane::start(dir.path(), "control-plane", any_port(), &database).await?;
    let mut api = plane.api()?;
    api.create_service("traced", settings()).await?;
    let trace = dir.path().join("trace");
    let mut strace = tokio::process::Command::new("strace")
        .args(["-f", "-y", "-s", "200000", "-o"])
        .arg(&trace)
        .args([
            "-e",
            "trace=pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg",
        ])
        .args(["-p", &plane.pid()?.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start strace; `make tools` installs it")?;
    wait::until(
        "all threads are traced",
        Duration::from_secs(10),
        async || Ok(all_traced(plane.pid()?)?.then_some(())),
    )
    .await?;
    api.create_version("traced", "hello:1", &[("MARK", MARK)])
        .await?;
    let id = strace.id().context("strace has exited")?;
    kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGINT)?;
    strace.wait().await?;
    plane.stop().await?;
    check_order(&std::fs::read_to_string(&trace)?)
}

fn all_traced(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        // A thread may exit meanwhile.
        let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let untraced = status
            .lines()
            .any(|line| line.split_whitespace().eq(["TracerPid:", "0"]));
        if untraced {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks that the row is written to the WAL and the WAL is flushed before the response is sent.
fn check_order(trace: &str) -> Result<()> {
    let lines: Vec<&str> = trace.lines().collect();
    let excerpt = || {
        let short = lines.iter().map(|line| line.chars().take(160).collect());
        short.collect::<Vec<String>>().join("\n")
    };
    let written = lines
        .iter()
        .rposition(|line| {
            line.contains("pwrite64(") && line.contains("cless.db-wal>") && line.contains(MARK)
        })
        .with_context(|| format!("the row is not written:\n{}", excerpt()))?;
    let responded = lines
        .iter()
        .position(|line| line.contains("<socket:") && line.contains(NAME))
        .with_context(|| format!("no response:\n{}", excerpt()))?;
    let flushed = lines.iter().enumerate().skip(written).find(|(at, line)| {
        let sync = line.contains("fdatasync(") || line.contains("fsync(");
        sync && line.contains("cless.db-wal>") && {
            // The call completes in its line or where the same thread resumes it.
            let thread = line.split(' ').next().unwrap_or_default();
            let end = lines[*at..].iter().position(|later| {
                later.starts_with(thread)
                    && (later.contains("sync(") || later.contains("sync resumed"))
                    && later.trim_end().ends_with("= 0")
            });
            end.is_some_and(|end| at + end < responded)
        }
    });
    ensure!(
        flushed.is_some() && written < responded,
        "the response was sent before the flush:\n{}",
        excerpt()
    );
    Ok(())
}

#[test]
fn the_check_detects_an_early_response() {
    let good = format!(
        "7 pwrite64(9</d/cless.db-wal>, \"{MARK}\", 4096, 0) = 4096\n7 fdatasync(9</d/cless.db-wal> <unfinished ...>\n\
         8 writev(3</log>, ...) = 1\n7 <... fdatasync resumed>) = 0\n8 writev(5<socket:[1]>, \"{NAME}\") = 9\n"
    );
    check_order(&good).expect("the order is correct");
    let mut lines: Vec<&str> = good.lines().collect();
    lines.swap(3, 4);
    check_order(&lines.join("\n")).expect_err("the response precedes the end of the flush");
    lines.remove(1);
    check_order(&lines.join("\n")).expect_err("there is no flush");
}
