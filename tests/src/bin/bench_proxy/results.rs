//! Samples on disk, and the report made from them.
//!
//! The file of a case names the builds that were measured, by size and modification time. Samples
//! of another build of cless are ignored, and so are those of another baseline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Result;
use cless_tests::chart::{self, Group};
use cless_tests::paths;
use cless_tests::report::{Better, Row};
use cless_tests::stats::{middle, millis, upper_bound};
use serde_json::{Value, json};

use super::cases::{CASES, Sample};
use super::peers::Racer;

const IDLE: &str = "idle-10k";
/// Cases in the chart: one of each kind.
const CHARTED: [&str; 7] = [
    "h1-1k-c32",
    "h1-64k-c32",
    "h1-tls-1k-c32",
    "h2-1k-c32x4",
    "h2-tls-1k-c32x4",
    "grpc-c32x4",
    "ws-1k-c32",
];

/// Latencies of an open loop in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) struct Results {
    dir: PathBuf,
    program: String,
    /// Identifies the build of the baseline; `None` without one.
    baseline: Option<String>,
}

pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) chart: String,
}

impl Results {
    /// Opens the folder for the present builds of both programs.
    pub(crate) fn open(program: &Path, baseline: Option<&Path>) -> Result<Self> {
        let dir = paths::target_dir()?.join("bench/proxy");
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            program: build_of(program)?,
            baseline: baseline.map(build_of).transpose()?,
        })
    }

    pub(crate) fn store(
        &self,
        case: &str,
        samples: &BTreeMap<Racer, Vec<Sample>>,
        latencies: &BTreeMap<Racer, Vec<Latency>>,
    ) -> Result<()> {
        self.write(
            case,
            json!({
                "cpu_us": column(samples, |sample| sample.cpu),
                "req_s": column(samples, |sample| sample.run.rate),
                "p50_ms": column(samples, |sample| millis(sample.run.p50)),
                "p99_ms": column(samples, |sample| millis(sample.run.p99)),
                "rss_mb": column(samples, |sample| sample.rss),
                "open_p50_ms": column(latencies, |latency| latency.p50),
                "open_p99_ms": column(latencies, |latency| latency.p99),
            }),
        )
    }

    /// Stores the memory of idle nodes in megabytes.
    pub(crate) fn store_idle(&self, rss: &[(Racer, f64)]) -> Result<()> {
        let rss = rss.iter().map(|(racer, rss)| (*racer, vec![*rss]));
        self.write(
            IDLE,
            json!({ "rss_mb": column(&rss.collect(), |rss| *rss) }),
        )
    }

    fn write(&self, case: &str, samples: Value) -> Result<()> {
        let path = self.dir.join(format!("{case}.json"));
        let document = json!({
            "program": self.program,
            "baseline": self.baseline,
            "samples": samples,
        });
        Ok(std::fs::write(path, format!("{document:#}\n"))?)
    }

    fn read(&self, case: &str) -> Result<Option<Samples>> {
        let Ok(text) = std::fs::read_to_string(self.dir.join(format!("{case}.json"))) else {
            return Ok(None);
        };
        let document: Value = serde_json::from_str(&text)?;
        let is_present = document["program"] == *self.program;
        Ok(is_present.then(|| Samples {
            columns: document["samples"].clone(),
            has_baseline: self.baseline.is_some() && document["baseline"] == json!(self.baseline),
        }))
    }

    /// Reports all cases with samples of this build.
    pub(crate) fn report(&self) -> Result<Report> {
        let (mut text, mut rows, mut groups) = (String::new(), Vec::new(), Vec::new());
        let _ = writeln!(
            text,
            "Medians. CPU in microseconds per request; rates and latencies of closed loops.\n{:<16} {:<8} {:>8} {:>9} {:>9} {:>9} {:>9}",
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
                if racer != Racer::Baseline {
                    bars.push((racer.name().to_owned(), cpu));
                }
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
            rows.extend(idle.against_baseline(IDLE));
        }
        let chart = chart::svg(
            "CPU of the proxy, microseconds per request",
            "One core for the proxy, equal logging and header work; medians of interleaved rounds; less is better",
            &groups,
        );
        Ok(Report { text, rows, chart })
    }
}

fn build_of(program: &Path) -> Result<String> {
    let found = program.metadata()?;
    let changed = found.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
    Ok(format!("{} bytes of {changed}", found.len()))
}

/// One value of each sample, by proxy and round.
fn column<T>(samples: &BTreeMap<Racer, Vec<T>>, value: fn(&T) -> f64) -> Value {
    let column = samples.iter().map(|(racer, all)| {
        let values: Vec<f64> = all.iter().map(value).collect();
        (racer.name().to_owned(), json!(values))
    });
    Value::Object(column.collect())
}

struct Samples {
    /// Values by column, proxy and round.
    columns: Value,
    /// Whether the samples of the baseline belong to the present baseline.
    has_baseline: bool,
}

impl Samples {
    fn column(&self, column: &str, racer: Racer) -> Option<Vec<f64>> {
        if racer == Racer::Baseline && !self.has_baseline {
            return None;
        }
        let values = self.columns[column][racer.name()].as_array()?;
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

    /// CPU of cless over that of another proxy, by round.
    fn cpu_ratios(&self, other: Racer) -> Option<Vec<f64>> {
        let ours = self.column("cpu_us", Racer::Cless)?;
        let theirs = self.column("cpu_us", other)?;
        Some(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect())
    }

    fn rows(&self, case: &'static str) -> Vec<Row> {
        let mut rows = self.against_others(case).unwrap_or_default();
        rows.extend(self.against_baseline(case));
        rows
    }

    /// Compares cless with its earlier build; no rows without samples of both.
    fn against_baseline(&self, case: &'static str) -> Vec<Row> {
        let row = |metric, better, ours, reference| Row {
            case,
            metric,
            better,
            ours,
            reference: Some((reference, Racer::Baseline.name())),
            bar: None,
        };
        let lower = Better::Lower;
        let mut rows = Vec::new();
        for (metric, column, better) in [
            ("cpu_per_request_vs_baseline", "cpu_us", lower),
            ("req_per_s_vs_baseline", "req_s", Better::Higher),
            ("p50_ms_vs_baseline", "p50_ms", lower),
            ("p99_ms_vs_baseline", "p99_ms", lower),
            ("p50_at_70_vs_baseline", "open_p50_ms", lower),
            ("p99_at_70_vs_baseline", "open_p99_ms", lower),
            ("rss_mb_vs_baseline", "rss_mb", lower),
        ] {
            let ours = self.median(column, Racer::Cless);
            if let (Some(ours), Some(theirs)) = (ours, self.median(column, Racer::Baseline)) {
                rows.push(row(metric, better, ours, theirs));
            }
        }
        if let Some(ratios) = self.cpu_ratios(Racer::Baseline) {
            for (metric, ratio) in [
                ("cpu_ratio_median_vs_baseline", middle(&ratios)),
                ("cpu_ratio_upper95_vs_baseline", upper_bound(&ratios)),
            ] {
                rows.push(row(metric, lower, ratio, 1.0));
            }
        }
        rows
    }

    /// Compares cless with the other proxies; `None` without samples of nginx or HAProxy.
    fn against_others(&self, case: &'static str) -> Option<Vec<Row>> {
        let ours = self.median("cpu_us", Racer::Cless)?;
        let (reference, racer) = self.reference("cpu_us", Better::Lower)?;
        let ratios = self.cpu_ratios(racer)?;
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
            row("cpu_per_request", lower, ours, cpu, Some(1.0)),
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
                rows.push(row(metric, lower, ours, reference, None));
            }
        }
        Some(rows)
    }
}
