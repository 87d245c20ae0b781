//! `cless-bench-micro`: the purely computational steps of a warm request, each compared with the
//! minimal code for the same job.
//!
//! | step | reference |
//! |---|---|
//! | weighted random choice of a version | array read at an index of the same generator |
//! | lookup of a random host among 100 000 | `HashMap::get` of the same hosts |
//! | admission and release at an instance, two threads | `fetch_add` and `fetch_sub` on an atomic |
//!
//! Rounds are interleaved; the reported ratio is the median of the rounds' ratios.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cless_data_plane::instance::admission::Admission;
use cless_data_plane::route::{
    Candidate, Change, Cursor, Digest, HostEntry, Route, Scope, Table, VersionSelector, choose,
    testing,
};
use cless_tests::report::{self, Better, Row, print_line};
use cless_tests::stats::middle;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const ROUNDS: usize = 31;
const HOSTS: usize = 100_000;
/// Operations per side and round, which take some tens of milliseconds.
const CHOICES: u32 = 4_000_000;
const ADMISSIONS: u32 = 1_000_000;
/// Both sides use the same random numbers.
const SEED: u64 = 7;

fn main() -> Result<()> {
    let (table, hosts) = table()?;
    let host = hosts.first().context("no hosts")?;
    let entry = table.lookup(host).context("the host is not in the table")?;
    let rows = [choice(entry)?, lookup(&table, &hosts)?, admission()];
    print_line(&format!(
        "Nanoseconds per operation.\n{}",
        report::table(&rows)
    ));
    let path = report::write("micro", &rows)?;
    print_line(&format!("wrote {}", path.display()));
    Ok(())
}

/// Runs both sides in each round. The reported reference yields the median ratio of the rounds.
fn row(
    case: &'static str,
    reference_name: &'static str,
    bar: f64,
    mut sides: impl FnMut() -> (f64, f64),
) -> Row {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| sides()).collect();
    let ours: Vec<f64> = rounds.iter().map(|(ours, _)| *ours).collect();
    let ratios: Vec<f64> = rounds.iter().map(|(ours, theirs)| ours / theirs).collect();
    let ours = middle(&ours);
    Row {
        case,
        metric: "ns",
        better: Better::Lower,
        ours,
        reference: Some((ours / middle(&ratios), reference_name)),
        bar: Some(bar),
    }
}

fn per_operation(took: Duration, operations: usize) -> f64 {
    took.as_secs_f64() * 1e9 / operations as f64
}

fn choice(entry: &HostEntry) -> Result<Row> {
    let slots = entry
        .route
        .slots
        .as_ref()
        .context("the route has no traffic")?;
    let array: [usize; 100] = std::array::from_fn(|at| slots.get(at));
    let ask = VersionSelector::default();
    Ok(row("choose", "array read", 2.0, || {
        let mut rng = SmallRng::seed_from_u64(SEED);
        let began = Instant::now();
        for _ in 0..CHOICES {
            black_box(choose(black_box(entry), &ask, &mut rng));
        }
        let ours = per_operation(began.elapsed(), CHOICES as usize);
        let mut rng = SmallRng::seed_from_u64(SEED);
        let began = Instant::now();
        for _ in 0..CHOICES {
            let slot = rng.random_range(0..array.len());
            black_box(black_box(&array)[slot]);
        }
        (ours, per_operation(began.elapsed(), CHOICES as usize))
    }))
}

fn lookup(table: &Table, hosts: &[Arc<str>]) -> Result<Row> {
    let map: HashMap<Arc<str>, &HostEntry> = hosts
        .iter()
        .map(|host| Some((host.clone(), table.lookup(host)?)))
        .collect::<Option<_>>()
        .context("a host is not in the table")?;
    let mut order: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(SEED));
    Ok(row("host-100k", "HashMap get", 1.5, || {
        let began = Instant::now();
        for host in &order {
            black_box(table.lookup(black_box(host)));
        }
        let ours = per_operation(began.elapsed(), order.len());
        let began = Instant::now();
        for host in &order {
            black_box(map.get(black_box(host.as_str())));
        }
        (ours, per_operation(began.elapsed(), order.len()))
    }))
}

fn admission() -> Row {
    let admission = Admission::default();
    admission.open();
    let counter = AtomicU64::new(0);
    row("admission-x2", "fetch_add and fetch_sub", 1.5, || {
        let ours = two_threads(|| {
            let _ = black_box(admission.enter(u32::MAX));
            black_box(admission.leave());
        });
        let theirs = two_threads(|| {
            black_box(counter.fetch_add(1, Ordering::AcqRel));
            black_box(counter.fetch_sub(1, Ordering::AcqRel));
        });
        (ours, theirs)
    })
}

/// Nanoseconds per operation of two concurrent threads.
fn two_threads(operation: impl Fn() + Sync) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ADMISSIONS {
                    operation();
                }
            });
        }
    });
    per_operation(began.elapsed(), 2 * ADMISSIONS as usize)
}

/// A table with one service per host, each with three versions in traffic, and the hosts.
fn table() -> Result<(Table, Vec<Arc<str>>)> {
    let of_three = testing::with_percents(&[34, 33, 33]);
    let hosts: Vec<Arc<str>> = (0..HOSTS)
        .map(|number| format!("service-{number}.example.com").into())
        .collect();
    let upserts = hosts.iter().enumerate().map(|(number, host)| {
        let uid: Arc<str> = format!("uid-{number}").into();
        let route = Route {
            service: format!("service-{number}").into(),
            service_uid: uid.clone(),
            hosts: [host.clone()].into(),
            ..of_three.clone()
        };
        Candidate {
            service_uid: uid,
            received: bytes::Bytes::new(),
            digest: Digest::default(),
            decoded: Ok(Arc::new(route)),
            last_good: None,
        }
    });
    let change = Change {
        cluster: "c".into(),
        cursor: Cursor {
            epoch: "e".into(),
            revision: 1,
            digest: Digest::default(),
        },
        scope: Scope::Snapshot,
        upserts: upserts.collect(),
        removed: Vec::new(),
    };
    Ok((Table::default().apply(change), hosts))
}
