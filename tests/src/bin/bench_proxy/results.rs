//! Samples on disk, and the report that is made of them.
//!
//! A case's file names the program its samples are of, by size and time of change: what was measured
//! of another build is never reported with this one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Result;
use cless_tests::chart::{self, Group};
use cless_tests::paths;
use cless_tests::report::{Better, Row};
use cless_tests::stats::{middle, upper_bound};
use serde_json::{Value, json};

use super::cases::{CASES, Sample};
use super::peers::Racer;

const IDLE: &str = "idle-10k";
/// What the picture shows: one of each kind.
const CHARTED: [&str; 7] = [
    "h1-1k-c32",
    "h1-64k-c32",
    "h1-tls-1k-c32",
    "h2-1k-c32x4",
    "h2-tls-1k-c32x4",
    "grpc-c32x4",
    "ws-1k-c32",
];

/// Of an open loop, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The folder of samples.
pub(crate) struct Results {
    dir: PathBuf,
    /// Names the build.
    program: String,
}

/// What is printed and written.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) chart: String,
}

impl Results {
    /// Of this build of `program`.
    pub(crate) fn open(program: &Path) -> Result<Self> {
        let dir = paths::target_dir()?.join("bench/proxy");
        std::fs::create_dir_all(&dir)?;
        let found = program.metadata()?;
        let changed = found.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
        let program = format!("{} bytes of {changed}", found.len());
        Ok(Self { dir, program })
    }

    /// Keeps the samples of a case.
    pub(crate) fn keep(
        &self,
        case: &str,
        samples: &BTreeMap<Racer, Vec<Sample>>,
        latencies: &BTreeMap<Racer, Vec<Latency>>,
    ) -> Result<()> {
        let column = |of: fn(&Sample) -> f64| -> Value {
            let column = samples.iter().map(|(racer, all)| {
                let values: Vec<f64> = all.iter().map(of).collect();
                (racer.name().to_owned(), json!(values))
            });
            Value::Object(column.collect())
        };
        let open = |of: fn(&Latency) -> f64| -> Value {
            let column = latencies.iter().map(|(racer, all)| {
                let values: Vec<f64> = all.iter().map(of).collect();
                (racer.name().to_owned(), json!(values))
            });
            Value::Object(column.collect())
        };
        self.write(
            case,
            json!({
                "cpu_us": column(|sample| sample.cpu),
                "req_s": column(|sample| sample.run.rate),
                "p50_ms": column(|sample| sample.run.p50.as_secs_f64() * 1e3),
                "p99_ms": column(|sample| sample.run.p99.as_secs_f64() * 1e3),
                "rss_mb": column(|sample| sample.rss),
                "open_p50_ms": open(|latency| latency.p50),
                "open_p99_ms": open(|latency| latency.p99),
            }),
        )
    }

    /// Keeps the memory of an idle node.
    pub(crate) fn keep_idle(&self, rss: f64) -> Result<()> {
        self.write(IDLE, json!({ "rss_mb": { "cless": [rss] } }))
    }

    fn write(&self, case: &str, samples: Value) -> Result<()> {
        let path = self.dir.join(format!("{case}.json"));
        let document = json!({ "program": self.program, "samples": samples });
        Ok(std::fs::write(path, format!("{document:#}\n"))?)
    }

    fn read(&self, case: &str) -> Result<Option<Samples>> {
        let Ok(text) = std::fs::read_to_string(self.dir.join(format!("{case}.json"))) else {
            return Ok(None);
        };
        let document: Value = serde_json::from_str(&text)?;
        let is_this = document["program"] == *self.program;
        Ok(is_this.then(|| Samples(document["samples"].clone())))
    }

    /// Of all cases of which there are samples of this build.
    pub(crate) fn report(&self) -> Result<Report> {
        let (mut text, mut rows, mut groups) = (String::new(), Vec::new(), Vec::new());
        let _ = writeln!(
            text,
            "Medians. CPU in microseconds a request; rates and latencies of closed loops.\n{:<16} {:<8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "case", "proxy", "cpu", "req/s", "p50 ms", "p99 ms", "RSS MB"
        );
        for case in CASES {
            let Some(samples) = self.read(case.name)? else {
                continue;
            };
            let mut bars = Vec::new();
            for racer in Racer::ALL {
                let of = |column| samples.median(column, racer);
                let Some(cpu) = of("cpu_us") else { continue };
                let number = |column| of(column).unwrap_or(f64::NAN);
                let _ = writeln!(
                    text,
                    "{:<16} {:<8} {cpu:>8.1} {:>9.0} {:>9.3} {:>9.3} {:>9.1}",
                    case.name,
                    racer.name(),
                    number("req_s"),
                    number("p50_ms"),
                    number("p99_ms"),
                    number("rss_mb"),
                );
                bars.push((racer.name().to_owned(), cpu));
            }
            if CHARTED.contains(&case.name) {
                let label = case.name.to_owned();
                groups.push(Group { label, bars });
            }
            rows.extend(samples.rows(case.name));
        }
        if let Some(idle) = self.read(IDLE)?
            && let Some(rss) = idle.median("rss_mb", Racer::Cless)
        {
            rows.push(Row {
                case: IDLE,
                metric: "rss_mb",
                better: Better::Lower,
                ours: rss,
                reference: None,
                bar: Some(40.0),
            });
        }
        let chart = chart::svg(
            "CPU of the proxy, microseconds a request",
            "One core for the proxy, equal logging and header work; medians of interleaved rounds; less is better",
            &groups,
        );
        Ok(Report { text, rows, chart })
    }
}

/// Columns of a case: each racer's value in each round.
struct Samples(Value);

impl Samples {
    fn column(&self, column: &str, racer: Racer) -> Option<Vec<f64>> {
        let values = self.0[column][racer.name()].as_array()?;
        let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
        (!values.is_empty()).then_some(values)
    }

    fn median(&self, column: &str, racer: Racer) -> Option<f64> {
        self.column(column, racer).map(|values| middle(&values))
    }

    /// The better of nginx and HAProxy in a column.
    fn reference(&self, column: &str, better: Better) -> Option<(f64, Racer)> {
        let both = [Racer::Nginx, Racer::Haproxy];
        let both = both
            .into_iter()
            .filter_map(|racer| Some((self.median(column, racer)?, racer)));
        match better {
            Better::Lower => both.min_by(|a, b| a.0.total_cmp(&b.0)),
            Better::Higher => both.max_by(|a, b| a.0.total_cmp(&b.0)),
        }
    }

    fn rows(&self, case: &'static str) -> Vec<Row> {
        self.compared(case).unwrap_or_default()
    }

    fn compared(&self, case: &'static str) -> Option<Vec<Row>> {
        let ours = self.column("cpu_us", Racer::Cless)?;
        let (reference, racer) = self.reference("cpu_us", Better::Lower)?;
        let theirs = self.column("cpu_us", racer)?;
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let row = |metric, better, ours, reference, bar| Row {
            case,
            metric,
            better,
            ours,
            reference,
            bar,
        };
        let lower = Better::Lower;
        let cpu = Some((reference, racer.name()));
        let mut rows = vec![
            row("cpu_per_request", lower, middle(&ours), cpu, Some(1.0)),
            row("cpu_ratio_median", lower, middle(&ratios), None, Some(1.0)),
            row(
                "cpu_ratio_upper95",
                lower,
                upper_bound(&ratios),
                None,
                Some(1.05),
            ),
        ];
        for (metric, column, better, bar) in [
            ("p99_at_70", "open_p99_ms", Better::Lower, Some(1.0)),
            ("p50_at_70", "open_p50_ms", Better::Lower, None),
            ("req_per_s", "req_s", Better::Higher, None),
            ("p50_ms", "p50_ms", Better::Lower, None),
            ("p99_ms", "p99_ms", Better::Lower, None),
        ] {
            let ours = self.median(column, Racer::Cless);
            if let (Some(ours), Some((value, racer))) = (ours, self.reference(column, better)) {
                rows.push(row(metric, better, ours, Some((value, racer.name())), bar));
            }
        }
        for (metric, racer) in [
            ("cpu_against_envoy", Racer::Envoy),
            ("cpu_against_caddy", Racer::Caddy),
            ("cpu_against_traefik", Racer::Traefik),
        ] {
            if let Some(value) = self.median("cpu_us", racer) {
                let reference = Some((value, racer.name()));
                rows.push(row(metric, lower, middle(&ours), reference, None));
            }
        }
        Some(rows)
    }
}
