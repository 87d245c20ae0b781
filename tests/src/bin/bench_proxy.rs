//! `cless-bench-proxy`: what a warm request through cless costs, beside nginx, HAProxy, Envoy, Caddy
//! and Traefik over the same origin.
//!
//! Equal work. Every proxy has one core to itself and one worker; load and origin have the other.
//! The origin is a container that cless started, and all dial its address. All set the same fields
//! where they can, keep connections to the origin open, and log each request or none does. Rounds are
//! interleaved, and each begins with another proxy. A run in which one answer is not a good one ends
//! the bench.
//!
//! The number that counts is CPU a request: user and system time of the proxy's processes over the
//! requests answered. It is compared in each round with the better of nginx and HAProxy; the median
//! of those ratios has a bar, and so has its upper bound. Rates and latencies of closed loops are
//! shown too; `p99_at_70` is of an open loop at 70 % of what nginx answered in that round.
//!
//! Samples of each case are kept in `target/bench/proxy/`, so cases can be run a few at a time; the
//! report is made of all that were taken of the program as it is now.

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

use std::io::Write as _;

use anyhow::{Result, bail};
use clap::Parser;
use cless_tests::{cpu, paths, report};

use tokio::signal::unix::{SignalKind, signal};

use cases::CASES;
use peers::Racer;
use results::Results;

/// The core of load and origin; the other is the proxy's.
const LOAD_CORE: usize = 0;
const PROXY_CORE: usize = 1;

/// Races cless against other proxies.
#[derive(Parser)]
struct Args {
    /// Cases whose name begins so; all without. `idle` is the memory of an idle node.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Who runs; at least nginx or HAProxy is needed to compare with.
    #[arg(long, value_delimiter = ',')]
    racers: Vec<Racer>,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of each run.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

// One thread, so that what is bound to a core stays there.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    // Either way out drops the cluster and the peers, which ends them.
    tokio::select! {
        outcome = bench(Args::parse()) => outcome,
        _ = end.recv() => bail!("told to end"),
        _ = tokio::signal::ctrl_c() => bail!("told to end"),
    }
}

async fn bench(args: Args) -> Result<()> {
    let chosen = |name: &str| {
        args.cases.is_empty()
            || args
                .cases
                .iter()
                .any(|start| name.starts_with(start.as_str()))
    };
    let racers = match args.racers.is_empty() {
        true => Racer::ALL.to_vec(),
        false => args.racers.clone(),
    };
    cpu::pin(LOAD_CORE)?;
    let results = Results::open(&paths::program("cless-data-plane")?)?;
    for logs in [false, true] {
        let cases: Vec<_> = CASES
            .into_iter()
            .filter(|case| case.logs == logs && chosen(case.name))
            .collect();
        if !cases.is_empty() {
            race::run(&cases, &racers, logs, args.rounds, args.seconds, &results).await?;
        }
    }
    if chosen("idle") {
        results.keep_idle(idle::memory().await?)?;
    }
    let report = results.report()?;
    say(&format!("\n{}", report.text));
    say(&report::table(&report.rows));
    let json = report::write("proxy", &report.rows)?;
    let chart = json.with_file_name("proxy.svg");
    std::fs::write(&chart, report.chart)?;
    say(&format!(
        "written to {} and {}",
        json.display(),
        chart.display()
    ));
    Ok(())
}
