//! The compared proxies, as processes on the proxy core.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cless_tests::{cpu, paths, wait};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::config::{self, Params};

/// Traefik is the slowest to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Racer {
    Cless,
    /// An earlier build of cless; selected by `--baseline`.
    #[value(skip)]
    Baseline,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
}

impl Racer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Cless,
        Self::Baseline,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Caddy,
        Self::Traefik,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cless => "cless",
            Self::Baseline => "baseline",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) h1: u16,
    /// HTTP/2 with prior knowledge; a separate port, because some proxies do not detect it.
    pub(crate) h2c: u16,
    /// Both over TLS, selected by ALPN.
    pub(crate) tls: u16,
}

impl Ports {
    /// Picks free ports. All are bound at once, so that they differ.
    pub(crate) fn free() -> Result<Self> {
        let held = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
        let mut ports = held.iter().map(|held| match held {
            Ok(held) => held.local_addr().map(|address| address.port()),
            Err(error) => Err(std::io::Error::from(error.kind())),
        });
        let mut next = || ports.next().context("three are held")?.context("no port");
        Ok(Self {
            h1: next()?,
            h2c: next()?,
            tls: next()?,
        })
    }
}

/// A running proxy; killed when dropped.
pub(crate) struct Peer {
    pub(crate) racer: Racer,
    pub(crate) ports: Ports,
    pub(crate) pid: u32,
    /// `None` for cless and the baseline, which the cluster owns.
    child: Option<Child>,
}

impl Drop for Peer {
    /// Kills the workers as well: they survive a killed master.
    fn drop(&mut self) {
        if self.child.is_some() {
            cpu::kill_tree(self.pid);
        }
    }
}

impl Peer {
    /// A node that its cluster started.
    pub(crate) fn node(racer: Racer, ports: Ports, pid: u32) -> Self {
        Self {
            racer,
            ports,
            pid,
            child: None,
        }
    }

    /// Starts another proxy on `core`, in `dir`, which contains the certificate.
    pub(crate) async fn start(
        racer: Racer,
        origin: SocketAddr,
        dir: &Path,
        logs: bool,
        core: usize,
    ) -> Result<Self> {
        let ports = Ports::free()?;
        let params = Params {
            ports,
            origin,
            dir,
            logs,
        };
        let file = |name: &str, content: String| -> Result<String> {
            let path = dir.join(name);
            std::fs::write(&path, content)?;
            Ok(path.display().to_string())
        };
        let tools = paths::target_dir()?.join("tools/bin");
        let (program, args) = match racer {
            Racer::Cless | Racer::Baseline => bail!("the cluster starts {}", racer.name()),
            Racer::Nginx => {
                let file = file("nginx.conf", config::nginx(&params))?;
                ("nginx".into(), vec!["-c".into(), file])
            }
            Racer::Haproxy => {
                let file = file("haproxy.cfg", config::haproxy(&params))?;
                ("haproxy".into(), vec!["-db".into(), "-f".into(), file])
            }
            Racer::Envoy => {
                let file = file("envoy.yaml", config::envoy(&params))?;
                let flags = [
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "-l",
                    "error",
                    "-c",
                ];
                let flags = flags.map(str::to_owned).into_iter().chain([file]);
                (tools.join("envoy"), flags.collect())
            }
            Racer::Caddy => {
                let file = file("Caddyfile", config::caddy(&params))?;
                let flags = ["run", "--adapter", "caddyfile", "--config"];
                let flags = flags.map(str::to_owned).into_iter().chain([file]);
                (tools.join("caddy"), flags.collect())
            }
            Racer::Traefik => {
                let (static_config, routes) = config::traefik(&params);
                file("traefik-routes.yaml", routes)?;
                let file = file("traefik.yaml", static_config)?;
                (tools.join("traefik"), vec![format!("--configFile={file}")])
            }
        };
        let log = dir.join(format!("{}.log", racer.name()));
        let output = std::fs::File::create(&log)?;
        // setpriv (util-linux, essential in Debian) ends the proxy when the bench is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM"])
            .arg(&program)
            .args(&args)
            .env("GOMAXPROCS", "1")
            // Debian installs servers in sbin.
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH")?),
            )
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let mut child = cpu::on(core, || command.spawn())?.with_context(|| {
            format!(
                "cannot start {}; `make bench-proxy` installs it",
                program.display()
            )
        })?;
        let pid = child.id().context("the proxy exited")?;
        for port in [ports.h1, ports.h2c, ports.tls] {
            let what = format!("{} listens on {port}", racer.name());
            let listens = wait::until(&what, START_TIMEOUT, async || {
                if let Some(status) = child.try_wait()? {
                    bail!("{} exited: {status}", racer.name());
                }
                Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())
            });
            listens.await.with_context(|| {
                std::fs::read_to_string(&log).unwrap_or_else(|error| error.to_string())
            })?;
        }
        Ok(Self {
            racer,
            ports,
            pid,
            child: Some(child),
        })
    }
}
