//! `cless-bench-feed`: propagation of changes to many proxies, and their cost in the control plane.
//!
//! Real subscribers with one connection each follow a real control plane in its own process. They
//! store digests instead of routes and verify every table. Changes are acknowledged writes of
//! traffic at a steady rate.
//!
//! - `propagation_p99_ms`: from the acknowledgement of a write until a subscriber has verified a
//!   table with it, over all writes and subscribers;
//! - `idle_subscription_kb`: memory of the control plane per subscriber, with a thousand idle ones;
//! - `joiners_200_mb`: peak growth of the control plane's memory while 200 subscribers join at
//!   once;
//! - `cpu_us`: CPU of the control plane per change and subscriber, including the write.
//!
//! Cases with `TLS` have a control plane that encrypts and authenticates, and subscribers that joined
//! as nodes; their `cpu_us` is compared with the same case without.
//!
//! Rows of other sizes show the growth. Subscribers use as much CPU as the control plane on the
//! same two cores, so the machine is under full load.

#[path = "bench_feed/identity.rs"]
mod identity;
#[path = "bench_feed/load.rs"]
mod load;
#[path = "bench_feed/memory.rs"]
mod memory;
#[path = "bench_feed/subscriber.rs"]
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use cless_tests::cluster::Cluster;
use cless_tests::report::{self, Better, Row, print_line};
use cless_tests::stats::{median, millis, quantile};
use cless_tests::{cpu, wait};
use futures_util::StreamExt as _;
use load::Write;
use rustls::ClientConfig;
use subscriber::{Subscriber, Uids};
use tokio::time::{Instant, sleep};

/// Subscribers that connect at the same time, unless joining is measured.
const CONCURRENT_JOINS: usize = 32;
const JOINERS: usize = 200;
const STALLED: usize = 100;
const SOON: Duration = Duration::from_secs(60);
/// Pause after the last write or join, for pending work.
const SETTLE: Duration = Duration::from_secs(2);
/// Several heartbeats of idle streams.
const IDLE: Duration = Duration::from_secs(12);

/// The largest case, and the same with TLS.
const LARGEST: &str = "10000r 1000s";
const LARGEST_TLS: &str = "10000r 1000s TLS";

/// Measures the route feed.
#[derive(Clone, Parser)]
struct Args {
    /// Seconds of changes in each case.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Changes per second.
    #[arg(long, default_value_t = 100)]
    rate: usize,
    /// Routes in the largest case.
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    /// Subscribers in the largest case.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
}

struct Case {
    name: &'static str,
    routes: usize,
    subscribers: usize,
    /// Subscribers that stop reading.
    stalled: usize,
    /// Bar of the propagation in milliseconds; `None` without one.
    bar: Option<f64>,
}

impl Case {
    fn row(&self, metric: &'static str, ours: f64, bar: Option<f64>) -> Row {
        Row {
            case: self.name,
            metric,
            better: Better::Lower,
            ours,
            reference: None,
            bar,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut bench = Bench::new(Cluster::start(0).await?, args.clone());
    let (routes, most) = (args.routes, args.subscribers);
    let case = |name, routes, subscribers| Case {
        name,
        routes,
        subscribers,
        stalled: 0,
        bar: None,
    };
    bench
        .run(case("100r 100s", routes / 100, most / 10))
        .await?;
    bench
        .run(case("1000r 100s", routes / 10, most / 10))
        .await?;
    bench.run(case("10000r 10s", routes, most / 100)).await?;
    bench.run(case("10000r 100s", routes, most / 10)).await?;
    bench.joiners().await?;
    bench.idle(LARGEST, 64.0).await?;
    let full = case(LARGEST, routes, most);
    bench
        .run(Case {
            bar: Some(250.0),
            ..full
        })
        .await?;
    let full = case("100 stalled", routes, most);
    bench
        .run(Case {
            stalled: STALLED.min(most / 10),
            ..full
        })
        .await?;
    let Bench {
        cluster, mut rows, ..
    } = bench;
    cluster.finish().await?;
    let mut trusted = Bench::new(Cluster::start_trusted(0).await?, args);
    trusted.fill(routes).await?;
    trusted.identities = identity::join_all(&trusted.cluster, most).await?;
    trusted.idle(LARGEST_TLS, 96.0).await?;
    let full = case(LARGEST_TLS, routes, most);
    trusted
        .run(Case {
            bar: Some(250.0),
            ..full
        })
        .await?;
    trusted.cluster.finish().await?;
    add_trusted(&mut rows, trusted.rows);
    print_line(&format!("\n{}", report::table(&rows)));
    let path = report::write("feed", &rows)?;
    print_line(&format!("wrote {}", path.display()));
    Ok(())
}

struct Bench {
    cluster: Cluster,
    /// TLS settings of the subscribers; empty: they connect without TLS.
    identities: Vec<Arc<ClientConfig>>,
    uids: Arc<Uids>,
    routes: usize,
    rows: Vec<Row>,
    args: Args,
}

impl Bench {
    fn new(cluster: Cluster, args: Args) -> Self {
        Self {
            cluster,
            identities: Vec::new(),
            uids: Arc::default(),
            routes: 0,
            rows: Vec::new(),
            args,
        }
    }

    async fn run(&mut self, case: Case) -> Result<()> {
        self.fill(case.routes).await?;
        self.restart().await?;
        let subscribers = self.join(case.subscribers, CONCURRENT_JOINS).await?;
        let (stalled, live) = subscribers.split_at(case.stalled);
        let mut held = Vec::new();
        for one in stalled {
            held.push(one.stall().await);
        }
        sleep(SETTLE).await;
        for one in live {
            one.take_arrivals();
        }
        let plane = self.cluster.control_plane_pid()?;
        let (before, changes) = (cpu::usage(plane)?, count(live));
        let time = Duration::from_secs(self.args.seconds);
        let writes = load::change(&self.cluster, case.routes, self.args.rate, time).await?;
        let last = writes.iter().map(|write| write.revision).max();
        self.wait_reached(live, last.unwrap_or_default()).await?;
        let used = cpu::usage(plane)?.cpu.saturating_sub(before.cpu);
        let times = propagation(live, &writes);
        ensure!(
            times.len() == writes.len() * live.len(),
            "a change was lost"
        );
        let (p50, p99) = (millis(median(&times)), millis(quantile(&times, 0.99)));
        let each = used.as_secs_f64() * 1e6 / times.len() as f64;
        let grown = memory::resident(plane)? as f64 / 1e6;
        print_line(&format!(
            "{}: {} changes reached {} subscribers in {} tables: p50 {p50:.0} ms, p99 {p99:.0} ms, \
             {each:.1} us of CPU each, {grown:.0} MB",
            case.name,
            writes.len(),
            live.len(),
            count(live) - changes,
        ));
        self.rows.extend([
            case.row("propagation_p99_ms", p99, case.bar),
            case.row("propagation_p50_ms", p50, None),
            case.row("cpu_us", each, None),
            case.row("plane_rss_mb", grown, None),
        ]);
        Ok(())
    }

    async fn joiners(&mut self) -> Result<()> {
        self.restart().await?;
        let plane = self.cluster.control_plane_pid()?;
        let before = memory::resident(plane)?;
        memory::reset_peak(plane)?;
        let begin = Instant::now();
        let joined = self.join(JOINERS, JOINERS).await?;
        let took = begin.elapsed();
        let grown = memory::peak(plane)?.saturating_sub(before) as f64 / 1e6;
        print_line(&format!(
            "{} subscribers joined at once in {:.1} s: peak of {grown:.0} MB more",
            joined.len(),
            took.as_secs_f64()
        ));
        let case = self.largest();
        self.rows
            .push(case.row("joiners_200_mb", grown, Some(100.0)));
        self.rows
            .push(case.row("joiners_200_s", took.as_secs_f64(), None));
        Ok(())
    }

    async fn idle(&mut self, case: &'static str, bar: f64) -> Result<()> {
        self.restart().await?;
        let plane = self.cluster.control_plane_pid()?;
        let before = memory::resident(plane)?;
        let idle = self.join(self.args.subscribers, CONCURRENT_JOINS).await?;
        sleep(IDLE).await;
        let grown = memory::resident(plane)?.saturating_sub(before) as f64;
        let each = grown / 1024.0 / idle.len() as f64;
        print_line(&format!(
            "{} idle subscribers: {each:.0} KB each",
            idle.len()
        ));
        let case = Case {
            name: case,
            ..self.largest()
        };
        self.rows
            .push(case.row("idle_subscription_kb", each, Some(bar)));
        Ok(())
    }

    fn largest(&self) -> Case {
        Case {
            name: LARGEST,
            routes: self.args.routes,
            subscribers: self.args.subscribers,
            stalled: 0,
            bar: None,
        }
    }

    async fn fill(&mut self, routes: usize) -> Result<()> {
        if self.routes < routes {
            let begin = Instant::now();
            load::fill(&self.cluster, self.routes, routes).await?;
            let took = begin.elapsed().as_secs_f64();
            print_line(&format!("filled to {routes} routes in {took:.1} s"));
            self.routes = routes;
        }
        Ok(())
    }

    /// Restarts the control plane, so that its memory contains no earlier case.
    async fn restart(&mut self) -> Result<()> {
        self.cluster.kill_control_plane().await?;
        self.cluster.start_control_plane().await?;
        sleep(SETTLE).await;
        Ok(())
    }

    /// Starts subscribers and waits until all have the whole table.
    async fn join(&self, count: usize, concurrent: usize) -> Result<Vec<Subscriber>> {
        let plane = self.cluster.grpc();
        let joining = (0..count).map(|number| {
            let tls = self.identities.get(number).cloned();
            Subscriber::join(plane, identity::name(number), tls, self.uids.clone())
        });
        let mut joined = Vec::with_capacity(count);
        let mut joining = futures_util::stream::iter(joining).buffer_unordered(concurrent);
        while let Some(subscriber) = joining.next().await {
            joined.push(subscriber?);
        }
        let head = self.cluster.api()?.check_propagation(0).await?.revision;
        self.wait_reached(&joined, head).await?;
        Ok(joined)
    }

    async fn wait_reached(&self, subscribers: &[Subscriber], revision: i64) -> Result<()> {
        let what = format!("revision {revision} at {} subscribers", subscribers.len());
        wait::until(&what, SOON, async || {
            for one in subscribers {
                one.check()?;
            }
            let all = subscribers.iter().all(|one| one.revision() >= revision);
            Ok(all.then_some(()))
        })
        .await
    }
}

/// Adds rows with TLS; the CPU is compared with that of the same case without.
fn add_trusted(rows: &mut Vec<Row>, trusted: Vec<Row>) {
    let of = |row: &&Row| row.case == LARGEST && row.metric == "cpu_us";
    let plain = rows.iter().find(of).map(|row| row.ours);
    rows.extend(trusted.into_iter().map(|row| match row.metric {
        "cpu_us" => Row {
            reference: plain.map(|plain| (plain, "cless --insecure")),
            bar: Some(1.1),
            ..row
        },
        _ => row,
    }));
}

fn count(subscribers: &[Subscriber]) -> usize {
    subscribers.iter().map(Subscriber::changes).sum()
}

/// The time from the acknowledgement of each write until each subscriber had verified a table with
/// it; zero if the table came first.
fn propagation(subscribers: &[Subscriber], writes: &[Write]) -> Vec<Duration> {
    let mut times = Vec::with_capacity(writes.len() * subscribers.len());
    for one in subscribers {
        let arrivals = one.take_arrivals();
        times.extend(writes.iter().filter_map(|write| {
            let at = arrivals.partition_point(|(revision, _)| *revision < write.revision);
            let (_, arrived) = arrivals.get(at)?;
            Some(arrived.saturating_duration_since(write.acknowledged))
        }));
    }
    times
}
