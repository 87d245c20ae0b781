//! Rounds of runs: each case on every proxy, each round starting with another one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::load::{Target, open};
use cless_tests::process;
use cless_tests::report::print_line;
use cless_tests::{cpu, engine, image};
use tokio::process::Command;

use super::cases::{Case, HOST, Load, Sample};
use super::peers::{Peer, Ports, Racer};
use super::results::{Latency, Results};
use super::{Args, LOAD_CORE, PROXY_CORE};

const SOON: Duration = Duration::from_secs(30);
/// Rate of the open loop, as a share of the rate that nginx reached.
const OPEN_LOOP_SHARE: f64 = 0.7;
/// Proxies that the open loop measures; each takes another run.
const OPEN_LOOP_RACERS: [Racer; 4] = [Racer::Cless, Racer::Baseline, Racer::Nginx, Racer::Haproxy];

/// Runs `cases` and stores the samples of each after its last round.
pub(crate) async fn run(cases: &[Case], args: &Args, logs: bool, results: &Results) -> Result<()> {
    let mut cluster = Cluster::start(0).await?;
    certificate(cluster.dir()).await?;
    let mut peers = vec![start_node(&mut cluster, Racer::Cless, None, logs).await?];
    if args.baseline.is_some() {
        let program = args.baseline.clone();
        peers.push(start_node(&mut cluster, Racer::Baseline, program, logs).await?);
    }
    let origin = start_origins(&cluster).await?;
    let racers = args.racers();
    // The cluster needs its node for the origin even if the rounds leave it out.
    peers.retain(|peer| racers.contains(&peer.racer));
    for &racer in &racers {
        if !matches!(racer, Racer::Cless | Racer::Baseline) {
            peers.push(Peer::start(racer, origin, cluster.dir(), logs, PROXY_CORE).await?);
        }
    }
    let (dir, seconds) = (cluster.dir().to_owned(), args.seconds);
    for case in cases {
        let mut samples: BTreeMap<Racer, Vec<Sample>> = BTreeMap::new();
        let mut latencies: BTreeMap<Racer, Vec<Latency>> = BTreeMap::new();
        for round in 0..args.rounds {
            for step in 0..peers.len() {
                // Odd rounds run in reverse, so that neighbours take turns at going first.
                let step = if round % 2 == 0 {
                    step
                } else {
                    peers.len() - step
                };
                let peer = &peers[(round + step) % peers.len()];
                let sample = case.run(peer, seconds, &dir).await?;
                samples.entry(peer.racer).or_default().push(sample);
                print_line(&format!(
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
        results.store(case.name, &samples, &latencies)?;
    }
    drop(peers);
    cluster.finish().await
}

/// Runs the open loop once on each of its proxies, at a share of the last rate of nginx.
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
    let rate = nginx.run.rate * OPEN_LOOP_SHARE;
    let measured = |peer: &&Peer| OPEN_LOOP_RACERS.contains(&peer.racer);
    for peer in peers.iter().filter(measured) {
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
        print_line(&format!(
            "{:<16}   open  {:<8} {:>8.0} req/s  p50 {p50:>7.3} ms  p99 {p99:>7.3} ms",
            case.name,
            peer.racer.name(),
            run.rate,
        ));
    }
    Ok(())
}

/// Starts a data plane on the proxy core; `program` is `None` for this build.
async fn start_node(
    cluster: &mut Cluster,
    racer: Racer,
    program: Option<PathBuf>,
    logs: bool,
) -> Result<Peer> {
    let dir = cluster.dir();
    // The data plane looks certificates up by file name.
    let certificates = dir.join("certificates");
    std::fs::create_dir_all(&certificates)?;
    std::fs::copy(dir.join("cert.pem"), certificates.join("default.crt"))?;
    std::fs::copy(dir.join("key.pem"), certificates.join("default.key"))?;
    let certificates = certificates.display().to_string();
    let log = dir.join(format!("{}-access.log", racer.name()));
    let log = log.display().to_string();
    let tls = Ports::free()?.tls;
    let tls_listen = format!("127.0.0.1:{tls}");
    let format = if logs { "combined" } else { "off" };
    let setup = NodeSetup {
        program,
        ..NodeSetup::flags(&[
            "--tls-listen",
            &tls_listen,
            "--tls-cert-dir",
            &certificates,
            "--access-log",
            format,
            "--access-log-file",
            &log,
        ])
    };
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
    Ok(Peer::node(racer, ports, node.pid()?))
}

/// Lets each node start its origin, on the load core; returns the address of the first node's.
async fn start_origins(cluster: &Cluster) -> Result<SocketAddr> {
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
        // No effective limit: the origin is bound to one core.
        cpu_millis: 2000,
        ..Default::default()
    };
    let version = api.create_version_of("bench", spec).await?;
    cluster
        .set_traffic("bench", &[(version.number, 100)])
        .await?;
    for node in cluster.nodes() {
        let response = node.get(HOST, "/1k").await?;
        let status = response.status;
        ensure!(status == 200, "the origin responds with {status}");
    }
    let nodes = cluster.nodes().len();
    let containers = cluster.wait_containers("bench", nodes, SOON).await?;
    for container in &containers {
        let pid = engine::pid(cluster.docker(), &container.id).await?;
        cpu::pin_tree(pid, LOAD_CORE)?;
    }
    let first = cluster.node_id(0)?;
    let mut containers = containers.iter();
    let origin = containers.find(|container| container.label("cless.node") == first);
    let origin = origin.context("the first node has no container of the origin")?;
    engine::address(cluster.docker(), &origin.id, 8080).await
}

/// Makes one certificate for all proxies with the most common kind of key: `cert.pem`, `key.pem`
/// and, for HAProxy, `both.pem`.
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
        .context("cannot create the certificate")?;
    let both = [std::fs::read(&cert)?, std::fs::read(&key)?].concat();
    Ok(std::fs::write(dir.join("both.pem"), both)?)
}
