//! A private Docker engine, which a test may kill or fill. It has its own folder, socket,
//! containerd namespaces and default bridge and does not touch the firewall, so that it disturbs no
//! other engine on the machine. It needs root, `dockerd` and `ip`.
//!
//! The separate default bridge is necessary because `--bridge=none` deletes `docker0` of any
//! engine. A restart with `--default-address-pool` does so too; its networks therefore use the
//! default ranges, of which an engine picks one without a route on the host.
//!
//! Containers outlive a killed engine in their shims. So dropping a private engine starts it again
//! if necessary, removes all containers, stops it and unmounts its file systems.

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

/// A start that has to recover dead containers takes seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of a private engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Containers keep running while the engine is down, and it adopts them after a restart.
    pub live_restore: bool,
    /// Size of its disk in MiB, in memory; `None` for a normal folder.
    pub disk_mib: Option<u32>,
}

/// A private engine. Tests call [`PrivateEngine::stop`] at the end; the drop does the same.
#[derive(Debug)]
pub struct PrivateEngine {
    dir: TempDir,
    setup: Setup,
    docker: Docker,
    process: Option<Child>,
    /// Bridges at the time of a kill, which the engine does not remove together with their
    /// networks.
    orphaned_bridges: Vec<String>,
}

/// Parameters of every start of the engine.
#[derive(Clone, Copy, Debug)]
struct Setup {
    live_restore: bool,
    /// A and B of the default bridge's range 10.A.B.0/24.
    range: (u32, u32),
}

impl Setup {
    /// Picks a random range, because bridges of concurrent engines must not overlap.
    fn new(options: Options) -> Self {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        Self {
            live_restore: options.live_restore,
            range: (200 + nanos / 1000 % 50, nanos % 250),
        }
    }

    fn bridge(self) -> String {
        format!("cless-{}-{}", self.range.0, self.range.1)
    }

    async fn create_bridge(self) -> Result<()> {
        let name = self.bridge();
        let address = format!("10.{}.{}.1/28", self.range.0, self.range.1);
        ip(&["link", "add", &name, "type", "bridge"]).await?;
        ip(&["addr", "add", &address, "dev", &name]).await?;
        ip(&["link", "set", &name, "up"]).await
    }
}

async fn remove_bridges(names: &[String]) -> Result<()> {
    for name in names {
        if Path::new("/sys/class/net").join(name).exists() {
            ip(&["link", "del", name]).await?;
        }
    }
    Ok(())
}

async fn bridges(docker: &Docker) -> Result<Vec<String>> {
    let ids = networks(docker).await?;
    let names = ids
        .iter()
        .map(|id| format!("br-{}", &id[..id.len().min(12)]));
    Ok(names.collect())
}

/// The ids of networks other than the predefined ones.
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
    let status = command
        .args(args)
        .env("PATH", admin_path())
        .status()
        .await?;
    ensure!(
        status.success(),
        "`ip {}` exited with {status}",
        args.join(" ")
    );
    Ok(())
}

/// `PATH` with the folders of administrators.
fn admin_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

impl PrivateEngine {
    /// Starts an empty engine.
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
        setup.create_bridge().await?;
        let process = spawn(dir.path(), setup)?;
        let docker = connect(dir.path()).await?;
        Ok(Self {
            dir,
            setup,
            docker,
            process: Some(process),
            orphaned_bridges: Vec::new(),
        })
    }

    /// Client of the engine.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Path of its socket, which remains after a kill.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// The value for `--engine`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Sends SIGKILL to the engine; its containers keep running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the engine is down")?;
        self.orphaned_bridges.extend(bridges(&self.docker).await?);
        Ok(process.kill().await?)
    }

    /// Sends SIGSTOP to the engine: it accepts connections and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Sends SIGCONT to the engine.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("the engine is down")?;
        let pid = process.id().context("the engine has exited")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Starts the engine again after [`PrivateEngine::kill`] and waits until it responds.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the engine is running");
        self.process = Some(spawn(self.dir.path(), self.setup)?);
        connect(self.dir.path()).await.map(drop)
    }

    /// Removes everything on the engine and stops it.
    pub async fn stop(mut self) -> Result<()> {
        let orphaned_bridges = std::mem::take(&mut self.orphaned_bridges);
        take_down(
            self.dir.path(),
            self.setup,
            self.process.take(),
            orphaned_bridges,
        )
        .await
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if !self.data().exists() || self.process.is_none() && unmounted(self.dir.path()) {
            return;
        }
        let (dir, setup) = (self.dir.path().to_owned(), self.setup);
        let orphaned_bridges = std::mem::take(&mut self.orphaned_bridges);
        // The present runtime may be shutting down. The process handle belongs to it, so the signal
        // goes to the process id.
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
                take_down(&dir, setup, None, orphaned_bridges).await
            })
        });
        let _ = taken_down.join();
    }
}

/// Removes everything on the engine, stops it and unmounts its file systems.
async fn take_down(
    dir: &Path,
    setup: Setup,
    process: Option<Child>,
    mut orphaned_bridges: Vec<String>,
) -> Result<()> {
    let mut process = match process {
        Some(process) => process,
        None => spawn(dir, setup)?,
    };
    let docker = connect(dir).await?;
    for container in engine::containers(&docker, &[]).await? {
        engine::remove(&docker, &container.id).await?;
    }
    orphaned_bridges.extend(bridges(&docker).await?);
    for network in networks(&docker).await? {
        docker.remove_network(&network).await?;
    }
    let pid = process.id().context("the engine has exited")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    if timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
        process.kill().await?;
    }
    let mut mounts = mounts(dir);
    // Inner mounts are unmounted first.
    mounts.reverse();
    for mount in mounts {
        Command::new("umount").arg("-l").arg(mount).status().await?;
    }
    remove_bridges(&orphaned_bridges).await?;
    remove_bridges(&[setup.bridge()]).await
}

fn unmounted(dir: &Path) -> bool {
    mounts(dir).is_empty()
}

/// Mount points below a folder, oldest first.
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
        .env("PATH", admin_path())
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
        .context("cannot start dockerd; `make engine` installs it")
}

async fn connect(dir: &Path) -> Result<Docker> {
    let socket = socket(dir);
    let client = wait::until("the private engine responds", READY_TIMEOUT, async || {
        let path = socket.to_str().context("the path is not UTF-8")?;
        // Connecting fails until the socket exists.
        let Ok(client) = Docker::connect_with_unix(path, 120, API_DEFAULT_VERSION) else {
            return Ok(None);
        };
        Ok(client.negotiate_version().await.ok())
    })
    .await;
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    client.with_context(|| format!("its log:\n{last}"))
}
