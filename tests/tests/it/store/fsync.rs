//! What is acknowledged is on disk: the order of system calls, as the kernel saw them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::settings;
use cless_tests::control_plane::{ControlPlane, any_port, sqlite};
use cless_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// In the env of the version, and so in its row.
const MARK: &str = "mark-of-the-traced-write";
/// In the answer, and in no other message.
const NAME: &str = "services/traced/versions/1";

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_write_is_sent_after_its_fsync() -> Result<()> {
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
        .context("strace, which tests/tools.sh installs")?;
    wait::until(
        "all threads are traced",
        Duration::from_secs(10),
        async || Ok(all_traced(plane.pid()?)?.then_some(())),
    )
    .await?;
    api.create_version("traced", "hello:1", &[("MARK", MARK)])
        .await?;
    let id = strace.id().context("strace has ended")?;
    kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGINT)?;
    strace.wait().await?;
    plane.stop().await?;
    assert_order(&std::fs::read_to_string(&trace)?)
}

fn all_traced(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        // A thread may end meanwhile.
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

/// The row is written to the log, the log is flushed, and only then does the answer leave.
fn assert_order(trace: &str) -> Result<()> {
    let lines: Vec<&str> = trace.lines().collect();
    let shown = || {
        let short = lines.iter().map(|line| line.chars().take(160).collect());
        short.collect::<Vec<String>>().join("\n")
    };
    let written = lines
        .iter()
        .rposition(|line| {
            line.contains("pwrite64(") && line.contains("cless.db-wal>") && line.contains(MARK)
        })
        .with_context(|| format!("the row is not written:\n{}", shown()))?;
    let answered = lines
        .iter()
        .position(|line| line.contains("<socket:") && line.contains(NAME))
        .with_context(|| format!("no answer:\n{}", shown()))?;
    let flushed = lines.iter().enumerate().skip(written).find(|(at, line)| {
        let sync = line.contains("fdatasync(") || line.contains("fsync(");
        sync && line.contains("cless.db-wal>") && {
            // Ended at once, or where the same thread resumes.
            let thread = line.split(' ').next().unwrap_or_default();
            let end = lines[*at..].iter().position(|later| {
                later.starts_with(thread)
                    && (later.contains("sync(") || later.contains("sync resumed"))
                    && later.trim_end().ends_with("= 0")
            });
            end.is_some_and(|end| at + end < answered)
        }
    });
    ensure!(
        flushed.is_some() && written < answered,
        "the answer left before the flush:\n{}",
        shown()
    );
    Ok(())
}

#[test]
fn the_check_finds_an_answer_that_came_too_early() {
    let good = format!(
        "7 pwrite64(9</d/cless.db-wal>, \"{MARK}\", 4096, 0) = 4096\n7 fdatasync(9</d/cless.db-wal> <unfinished ...>\n\
         8 writev(3</log>, ...) = 1\n7 <... fdatasync resumed>) = 0\n8 writev(5<socket:[1]>, \"{NAME}\") = 9\n"
    );
    assert_order(&good).expect("in order");
    let mut lines: Vec<&str> = good.lines().collect();
    lines.swap(3, 4);
    assert_order(&lines.join("\n")).expect_err("answered before the flush ended");
    lines.remove(1);
    assert_order(&lines.join("\n")).expect_err("never flushed");
}
