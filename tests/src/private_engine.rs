//! A Docker engine of a test's own, to kill and to fill: its own folder, socket, namespace of
//! containerd and default bridge, and no say in the firewall, so that it disturbs no other engine on
//! the machine. Needs root, `dockerd` and `ip`.
//!
//! It has a default bridge of its own because `--bridge=none` deletes `docker0`, whoever's that is; a
//! restart with `--default-address-pool` does too, so its networks are in the usual ranges, of which an
//! engine takes one that the host has no route to.
//!
//! Containers outlive an engine that is killed, in the hands of their shims. So a private engine that
//! is dropped is started once more if it must be, emptied, stopped, and what it mounted is unmounted.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{engine, wait};

/// A start that has to bring dead containers in order takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// How a private engine differs from a usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Containers go on while the engine is away, and it takes them over when it is back.
    pub live_restore: bool,
    /// Its disk holds this many MiB, in memory.
    pub disk_mib: Option<u32>,
}

/// The engine. Call [`PrivateEngine::stop`] at the end; dropping it does the same.
#[derive(Debug)]
pub struct PrivateEngine {
    dir: TempDir,
    setup: Setup,
    docker: Docker,
    process: Option<Child>,
    /// Bridges that it had when it was killed: it does not remove them with their networks then.
    forgotten: Vec<String>,
}

/// What an engine is started with, each time.
#[derive(Clone, Copy, Debug)]
struct Setup {
    live_restore: bool,
    /// Its default bridge is in 10.A.B.0/24.
    range: (u32, u32),
}

impl Setup {
    /// Bridges of engines that run at the same time must not overlap: each takes a range by chance.
    fn new(options: Options) -> Self {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        Self {
            live_restore: options.live_restore,
            range: (200 + nanos / 1000 % 50, nanos % 250),
        }
    }

    /// What its default bridge is called.
    fn bridge(self) -> String {
        format!("cless-{}-{}", self.range.0, self.range.1)
    }

    async fn make_bridge(self) -> Result<()> {
        let name = self.bridge();
        let address = format!("10.{}.{}.1/28", self.range.0, self.range.1);
        ip(&["link", "add", &name, "type", "bridge"]).await?;
        ip(&["addr", "add", &address, "dev", &name]).await?;
        ip(&["link", "set", &name, "up"]).await
    }
}

/// Removes bridges, as far as they are there.
async fn remove_bridges(names: &[String]) -> Result<()> {
    for name in names {
        if Path::new("/sys/class/net").join(name).exists() {
            ip(&["link", "del", name]).await?;
        }
    }
    Ok(())
}

/// The bridges of an engine's networks, by the names that it gives them.
async fn bridges(docker: &Docker) -> Result<Vec<String>> {
    let ids = networks(docker).await?;
    let names = ids
        .iter()
        .map(|id| format!("br-{}", &id[..id.len().min(12)]));
    Ok(names.collect())
}

/// The ids of the networks that an engine did not have from the start.
async fn networks(docker: &Docker) -> Result<Vec<String>> {
    let custom = [("type".to_owned(), vec!["custom".to_owned()])].into();
    let options = ListNetworksOptionsBuilder::default()
        .filters(&custom)
        .build();
    let found = docker.list_networks(Some(options)).await?;
    Ok(found.into_iter().filter_map(|network| network.id).collect())
}

async fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    let status = command.args(args).env("PATH", programs()).status().await?;
    ensure!(
        status.success(),
        "`ip {}` ended with {status}",
        args.join(" ")
    );
    Ok(())
}

/// Debian has some where the paths of users do not look.
fn programs() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

impl PrivateEngine {
    /// Starts an empty one.
    pub async fn start(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cless-engine-").tempdir()?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data)?;
        if let Some(mib) = options.disk_mib {
            let size = format!("size={mib}m");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&data);
            ensure!(mount.status().await?.success(), "cannot mount a tmpfs");
        }
        let setup = Setup::new(options);
        setup.make_bridge().await?;
        let process = spawn(dir.path(), setup)?;
        let docker = connect(dir.path()).await?;
        Ok(Self {
            dir,
            setup,
            docker,
            process: Some(process),
            forgotten: Vec::new(),
        })
    }

    /// Its API.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its socket, which is there while it runs, and after a kill.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// What `--engine` takes.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// SIGKILL. What runs on it goes on.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it is down")?;
        self.forgotten.extend(bridges(&self.docker).await?);
        Ok(process.kill().await?)
    }

    /// Starts it again after [`PrivateEngine::kill`], and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        self.process = Some(spawn(self.dir.path(), self.setup)?);
        connect(self.dir.path()).await.map(drop)
    }

    /// Ends it in order. What a test left on it is the test's failure, and goes with it.
    pub async fn stop(mut self) -> Result<()> {
        let forgotten = std::mem::take(&mut self.forgotten);
        take_down(self.dir.path(), self.setup, self.process.take(), forgotten).await
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if !self.data().exists() || self.process.is_none() && unmounted(self.dir.path()) {
            return;
        }
        let (dir, setup) = (self.dir.path().to_owned(), self.setup);
        let forgotten = std::mem::take(&mut self.forgotten);
        // On a runtime of its own, for this may happen in one that is ending; the process handle
        // belongs to the old one, so it is signalled by its number.
        let pid = self.process.as_ref().and_then(Child::id);
        let taken_down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            if let Some(pid) = pid {
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            }
            runtime.block_on(async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                take_down(&dir, setup, None, forgotten).await
            })
        });
        let _ = taken_down.join();
    }
}

/// Removes what runs on the engine, ends it, and unmounts what it has mounted.
async fn take_down(
    dir: &Path,
    setup: Setup,
    process: Option<Child>,
    mut forgotten: Vec<String>,
) -> Result<()> {
    let mut process = match process {
        Some(process) => process,
        None => spawn(dir, setup)?,
    };
    let docker = connect(dir).await?;
    for container in engine::containers(&docker, &[]).await? {
        engine::remove(&docker, &container.id).await?;
    }
    forgotten.extend(bridges(&docker).await?);
    for network in networks(&docker).await? {
        docker.remove_network(&network).await?;
    }
    let pid = process.id().context("it has ended")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    let ended = timeout(STOPS_WITHIN, process.wait()).await;
    if ended.is_err() {
        process.kill().await?;
    }
    let mut mounts = mounts(dir);
    // The innermost first.
    mounts.reverse();
    for mount in mounts {
        Command::new("umount").arg("-l").arg(mount).status().await?;
    }
    remove_bridges(&forgotten).await?;
    remove_bridges(&[setup.bridge()]).await
}

fn unmounted(dir: &Path) -> bool {
    mounts(dir).is_empty()
}

/// What is mounted below a folder, in the order in which it was.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect()
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("engine.sock")
}

fn spawn(dir: &Path, setup: Setup) -> Result<Child> {
    let path = |name: &str| dir.join(name).display().to_string();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let mut dockerd = Command::new("dockerd");
    dockerd
        .env("PATH", programs())
        .args(["--host", &format!("unix://{}", path("engine.sock"))])
        .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
        .args(["--pidfile", &path("pid")])
        .args(["--bridge", &setup.bridge()])
        .args(["--iptables=false", "--ip-masq=false"])
        .args(["--userland-proxy=false"])
        .args(["--containerd-namespace", "cless-private"])
        .args(["--containerd-plugins-namespace", "cless-private-plugins"])
        .args(["--cgroup-parent", "/cless-private"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    if setup.live_restore {
        dockerd.arg("--live-restore");
    }
    dockerd
        .spawn()
        .context("cannot start dockerd: `make engine` installs it")
}

/// A client, once the engine answers.
async fn connect(dir: &Path) -> Result<Docker> {
    let socket = socket(dir);
    let answering = wait::until("the private engine answers", READY_WITHIN, async || {
        let path = socket.to_str().context("no text")?;
        // Fails until the socket is there.
        let Ok(client) = Docker::connect_with_unix(path, 120, API_DEFAULT_VERSION) else {
            return Ok(None);
        };
        Ok(client.negotiate_version().await.ok())
    })
    .await;
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    answering.with_context(|| format!("its log:\n{last}"))
}
