//! A seeded simulation of faults with the real publisher and the real client of the feed; laws 2,
//! 7, 9.
//!
//! ```text
//!   database ── two replicas ── publisher, streams ── fault injector ── link ── client, cache folder
//!   (store.rs)                  (control_plane.rs)                   (link.rs)  (node.rs)
//! ```
//!
//! Time is paused, so a run of simulated minutes takes only its CPU time. Invariants of each step:
//! every node serves exactly one committed table; revisions never decrease within an epoch; a node
//! without a fault is up to date whatever faults the others have. At the end all faults are
//! repaired, and every node must reach the newest revision.
//!
//! A failed seed is printed with its events; `CLESS_SIM_SEED=N` runs only that seed,
//! `CLESS_SIM_SEEDS=N` runs that many. The seed determines all random choices, but not the order of
//! simultaneous events if a thread writes to disk.

mod control_plane;
mod coverage;
mod link;
mod node;
mod run;
mod store;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coverage::Coverage;

/// Number of runs in `make test`.
const SEEDS: u64 = 1000;

/// Failed seeds after which the test stops.
const MAX_FAILURES: usize = 5;

/// Code paths that a thousand runs must cover.
const REQUIRED: [&str; 27] = [
    "snapshot to a new node",
    "snapshot: compacted",
    "snapshot: unknown epoch",
    "snapshot again",
    "resume at the head",
    "resume by delta",
    "delta",
    "more than one chunk",
    "heartbeat",
    "go away",
    "ack",
    "ack with quarantine",
    "nack: corrupt",
    "nack: rejected, older",
    "nack: rejected, another cluster",
    "closed: no ack in time",
    "closed: replica behind",
    "closed: out of order",
    "cache used",
    "cache set aside",
    "node killed",
    "node stopped",
    "plane killed",
    "plane stopped",
    "node up to date beside a faulty one",
    "node shown as stale",
    "hello without a table",
];

#[test]
#[expect(
    clippy::print_stderr,
    reason = "the events of failures, and the coverage"
)]
fn the_feed_keeps_its_laws_under_any_faults() {
    let single = std::env::var("CLESS_SIM_SEED").ok();
    let seeds = match &single {
        Some(seed) => {
            let seed: u64 = seed.parse().expect("CLESS_SIM_SEED is a number");
            seed..seed + 1
        }
        None => {
            let count = std::env::var("CLESS_SIM_SEEDS").ok();
            0..count.map_or(SEEDS, |count| {
                count.parse().expect("CLESS_SIM_SEEDS is a number")
            })
        }
    };
    let coverage = Coverage::default();
    let (next, last) = (AtomicU64::new(seeds.start), seeds.end);
    let began = Instant::now();
    let failed = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failed.lock().len() >= MAX_FAILURES {
                        return;
                    }
                    if let Err(report) = run::run(seed, &coverage) {
                        failed.lock().push((seed, report));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let covered = coverage.counts();
    let lines: Vec<_> = covered
        .iter()
        .map(|(path, count)| format!("{count:>8} {path}"))
        .collect();
    eprintln!(
        "{} seeds in {:?}\n{}",
        seeds.end - seeds.start,
        began.elapsed(),
        lines.join("\n")
    );
    for (seed, report) in &failed {
        eprintln!("{report}\nCLESS_SIM_SEED={seed} repeats this run\n");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    if seeds == (0..SEEDS) {
        let mut missing = REQUIRED.to_vec();
        missing.retain(|path| !covered.contains_key(path));
        assert!(missing.is_empty(), "not covered: {missing:?}");
    }
}
