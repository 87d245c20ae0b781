//! `cless-bench-proxy`: the cost of a warm request through cless, compared with nginx, HAProxy,
//! Envoy, Caddy and Traefik in front of the same origin.
//!
//! Equal work: every proxy runs one worker on a core of its own; load generator and origin share
//! the other core. The origin is a container that cless started, and every proxy dials its address.
//! All proxies set the same header fields where they can, keep upstream connections alive, and
//! either all log requests or none does. Rounds are interleaved, and each starts with another
//! proxy. A single wrong response ends the bench.
//!
//! The main metric is CPU per request: user and system time of the proxy's processes divided by the
//! number of responses. Each round compares it with the better of nginx and HAProxy; the median
//! ratio and its upper confidence bound have bars. Rates and latencies of closed loops are
//! informative; `p99_at_70` comes from an open loop at 70 % of the rate that nginx reached in that
//! round.
//!
//! `--baseline` adds an earlier build of the data plane as a second node of the same cluster. It
//! runs with the same flags in the same rounds, and its rows end in `_vs_baseline`.
//!
//! Samples are stored per case in `target/bench/proxy/`, so cases can run a few at a time. The
//! report covers all stored samples of the present build.

#[path = "bench_proxy/cases.rs"]
mod cases;
#[path = "bench_proxy/config.rs"]
mod config;
#[path = "bench_proxy/idle.rs"]
mod idle;
#[path = "bench_proxy/peers.rs"]
mod peers;
#[path = "bench_proxy/race.rs"]
mod race;
#[path = "bench_proxy/results.rs"]
mod results;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use cless_tests::report::{self, print_line};
use cless_tests::{cpu, paths};
use tokio::signal::unix::{SignalKind, signal};

use cases::CASES;
use peers::Racer;
use results::Results;

const LOAD_CORE: usize = 0;
const PROXY_CORE: usize = 1;

/// Compares the proxy of cless with other proxies.
#[derive(Parser)]
struct Args {
    /// Run only cases whose name starts with one of these; `idle` is the memory of an idle node.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Proxies to run; nginx or HAProxy is needed as the reference.
    #[arg(long, value_delimiter = ',')]
    racers: Vec<Racer>,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per run.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// A `cless-data-plane` of an earlier build, which runs in the same rounds.
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
}

impl Args {
    fn selects(&self, case: &str) -> bool {
        let mut prefixes = self.cases.iter();
        self.cases.is_empty() || prefixes.any(|prefix| case.starts_with(prefix.as_str()))
    }

    /// The proxies to run. The baseline follows cless, so that both run back to back.
    fn racers(&self) -> Vec<Racer> {
        let racers = Racer::ALL.into_iter();
        racers
            .filter(|racer| match racer {
                Racer::Baseline => self.baseline.is_some(),
                _ => self.racers.is_empty() || self.racers.contains(racer),
            })
            .collect()
    }
}

// One thread, so that its CPU affinity applies to the whole program.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Dropping the bench ends the cluster and the other proxies.
    tokio::select! {
        outcome = bench(Args::parse()) => outcome,
        _ = terminate.recv() => bail!("terminated by a signal"),
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn bench(mut args: Args) -> Result<()> {
    if let Some(path) = &mut args.baseline {
        ensure!(
            path.is_file(),
            "--baseline: {} is not a file; pass the path of a cless-data-plane executable",
            path.display()
        );
        *path = path.canonicalize()?;
    }
    cpu::pin(LOAD_CORE)?;
    let ours = paths::program("cless-data-plane")?;
    let results = Results::open(&ours, args.baseline.as_deref())?;
    for logs in [false, true] {
        let cases: Vec<_> = CASES
            .into_iter()
            .filter(|case| case.logs == logs && args.selects(case.name))
            .collect();
        if !cases.is_empty() {
            race::run(&cases, &args, logs, &results).await?;
        }
    }
    if args.selects("idle") {
        results.store_idle(&idle::memory(args.baseline.as_deref()).await?)?;
    }
    let report = results.report()?;
    print_line(&format!("\n{}", report.text));
    print_line(&report::table(&report.rows));
    let json = report::write("proxy", &report.rows)?;
    let chart = json.with_file_name("proxy.svg");
    std::fs::write(&chart, report.chart)?;
    print_line(&format!("wrote {} and {}", json.display(), chart.display()));
    Ok(())
}
