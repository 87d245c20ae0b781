//! Rounds of runs: every case on every racer, each round beginning with another one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::load::{Target, open};
use cless_tests::process;
use cless_tests::{cpu, engine, image};
use tokio::process::Command;

use super::cases::{Case, HOST, Load, Sample};
use super::peers::{Peer, Ports, Racer};
use super::results::{Latency, Results};
use super::{LOAD_CORE, PROXY_CORE, say};

const SOON: Duration = Duration::from_secs(30);
/// Share of nginx's rate that the open loop asks for.
const SHARE: f64 = 0.7;
/// Who runs the open loop: it takes a run more.
const OPEN: [Racer; 3] = [Racer::Cless, Racer::Nginx, Racer::Haproxy];

/// Runs `cases` and keeps the samples of each once its rounds are done.
pub(crate) async fn run(
    cases: &[Case],
    racers: &[Racer],
    logs: bool,
    rounds: usize,
    seconds: u64,
    results: &Results,
) -> Result<()> {
    let mut cluster = Cluster::start(0).await?;
    certificate(cluster.dir()).await?;
    let ours = start_cless(&mut cluster, logs).await?;
    let origin = start_origin(&cluster).await?;
    let mut peers = Vec::new();
    for &racer in racers {
        peers.push(match racer {
            Racer::Cless => Peer::cless(ours.0, ours.1),
            _ => Peer::start(racer, origin, cluster.dir(), logs, PROXY_CORE).await?,
        });
    }
    let dir = cluster.dir().to_owned();
    for case in cases {
        let mut samples: BTreeMap<Racer, Vec<Sample>> = BTreeMap::new();
        let mut latencies: BTreeMap<Racer, Vec<Latency>> = BTreeMap::new();
        for round in 0..rounds {
            for at in 0..peers.len() {
                let peer = &peers[(at + round) % peers.len()];
                let sample = case.run(peer, seconds, &dir).await?;
                samples.entry(peer.racer).or_default().push(sample);
                say(&format!(
                    "{:<16} round {round} {:<8} {:>8.0} req/s  p50 {:>7.3} ms  p99 {:>7.3} ms  {:>6.1} us  {:>5.1} MB",
                    case.name,
                    peer.racer.name(),
                    sample.run.rate,
                    sample.run.p50.as_secs_f64() * 1e3,
                    sample.run.p99.as_secs_f64() * 1e3,
                    sample.cpu,
                    sample.rss,
                ));
            }
            if let (Load::Http1 { connections }, false) = (case.load, case.tls || logs) {
                open_loop(case, connections, &peers, seconds, &samples, &mut latencies).await?;
            }
        }
        results.keep(case.name, &samples, &latencies)?;
    }
    drop(peers);
    cluster.finish().await
}

/// One run of the open loop on each that takes part, at a share of nginx's last rate.
async fn open_loop(
    case: &Case,
    connections: usize,
    peers: &[Peer],
    seconds: u64,
    samples: &BTreeMap<Racer, Vec<Sample>>,
    latencies: &mut BTreeMap<Racer, Vec<Latency>>,
) -> Result<()> {
    let Some(nginx) = samples.get(&Racer::Nginx).and_then(|all| all.last()) else {
        return Ok(());
    };
    let rate = nginx.run.rate * SHARE;
    for peer in peers.iter().filter(|peer| OPEN.contains(&peer.racer)) {
        let target = Target {
            address: ([127, 0, 0, 1], peer.ports.h1).into(),
            host: HOST,
            path: case.path,
            tls: false,
        };
        let run = open::run(target, connections, rate, seconds).await?;
        let (p50, p99) = (run.p50.as_secs_f64() * 1e3, run.p99.as_secs_f64() * 1e3);
        latencies
            .entry(peer.racer)
            .or_default()
            .push(Latency { p50, p99 });
        say(&format!(
            "{:<16}   open  {:<8} {:>8.0} req/s  p50 {p50:>7.3} ms  p99 {p99:>7.3} ms",
            case.name,
            peer.racer.name(),
            run.rate,
        ));
    }
    Ok(())
}

/// Starts a data plane on the proxy's core.
async fn start_cless(cluster: &mut Cluster, logs: bool) -> Result<(Ports, u32)> {
    let dir = cluster.dir();
    // A folder of certificates is read by name.
    let certificates = dir.join("certificates");
    std::fs::create_dir_all(&certificates)?;
    std::fs::copy(dir.join("cert.pem"), certificates.join("default.crt"))?;
    std::fs::copy(dir.join("key.pem"), certificates.join("default.key"))?;
    let certificates = certificates.display().to_string();
    let log = dir.join("cless-access.log").display().to_string();
    let tls = Ports::free()?.tls;
    let tls_listen = format!("127.0.0.1:{tls}");
    let format = if logs { "combined" } else { "off" };
    let setup = NodeSetup::flags(&[
        "--tls-listen",
        &tls_listen,
        "--tls-cert-dir",
        &certificates,
        "--access-log",
        format,
        "--access-log-file",
        &log,
    ]);
    cpu::pin(PROXY_CORE)?;
    let node = cluster.add_node_with(setup).await;
    cpu::pin(LOAD_CORE)?;
    let node = cluster.node(node?);
    let port = node.listen.port();
    let ports = Ports {
        h1: port,
        h2c: port,
        tls,
    };
    Ok((ports, node.pid()?))
}

/// Has cless start the origin, on the core of the load, and returns where it listens.
async fn start_origin(cluster: &Cluster) -> Result<std::net::SocketAddr> {
    let image = image::bench_origin(cluster.docker()).await?;
    let settings = v1::ServiceSettings {
        concurrency: Some(1000),
        min_instances: Some(1),
        max_instances: Some(1),
        ..settings()
    };
    let mut api = cluster.api()?;
    api.create_service("bench", settings).await?;
    let spec = v1::VersionSpec {
        image,
        // No limit that a run could meet: it uses one core.
        cpu_millis: 2000,
        ..Default::default()
    };
    let version = api.create_version_of("bench", spec).await?;
    cluster
        .set_traffic("bench", &[(version.number, 100)])
        .await?;
    let answer = cluster.get("bench", "/1k").await?;
    anyhow::ensure!(answer.status == 200, "the origin answers {}", answer.status);
    let container = cluster.wait_containers("bench", 1, SOON).await?.remove(0);
    let pid = engine::pid(cluster.docker(), &container.id).await?;
    cpu::pin_tree(pid, LOAD_CORE)?;
    engine::address(cluster.docker(), &container.id, 8080).await
}

/// A certificate for all, of the kind that is most common today, as `cert.pem`, `key.pem` and, for
/// HAProxy, `both.pem`.
async fn certificate(dir: &Path) -> Result<()> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut command = Command::new("openssl");
    command
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "30", "-subj", &format!("/CN={HOST}")])
        .args(["-addext", &format!("subjectAltName=DNS:{HOST}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    process::run(command)
        .await?
        .ok()
        .context("no certificate")?;
    let both = [std::fs::read(&cert)?, std::fs::read(&key)?].concat();
    Ok(std::fs::write(dir.join("both.pem"), both)?)
}
