use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// The queue depth was registered twice, and Prometheus refuses duplicate samples.
#[test]
fn each_metric_is_registered_once() {
    let text = Metrics::default().text(Format::OpenMetrics).unwrap();
    let mut named: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let all = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), all, "{text}");
}

#[test]
fn buckets_have_no_hole() {
    for buckets in [&REQUEST_BUCKETS[..], &START_BUCKETS[..]] {
        for pair in buckets.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
            let allowed = if pair[1] <= 60.0 { 3.0 } else { 5.0 };
            assert!(pair[1] / pair[0] <= allowed, "{pair:?}");
        }
    }
    let seconds = |(from, to)| {
        REQUEST_BUCKETS
            .iter()
            .filter(|at| (from..=to).contains(*at))
            .count()
    };
    assert!(seconds((1.0, 60.0)) >= 7);
}

#[test]
fn counters_of_known_reasons_start_at_0() {
    let metrics = Metrics::default();
    metrics.begin_version(&"a".into(), 1);
    let text = metrics.text(Format::Prometheus).unwrap();
    for line in [
        "cless_rejects_total{reason=\"unknown_host\",service=\"\",version=\"\"} 0",
        "cless_rejects_total{reason=\"queue_full\",service=\"a\",version=\"1\"} 0",
        "cless_rejects_total{reason=\"malformed_response\",service=\"a\",version=\"1\"} 0",
        "cless_connections_closed_total{reason=\"tls\"} 0",
        "cless_starts_total{service=\"a\",version=\"1\",outcome=\"ready\"} 0",
        "cless_request_bytes_total{service=\"a\",version=\"1\"} 0",
        "cless_response_bytes_total{service=\"a\",version=\"1\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
    let build = format!(
        "cless_build_info{{version=\"{}\",",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&build), "{text}");
}

/// The checks of Prometheus' parser and of `promtool check metrics` that concern these metrics.
#[test]
fn the_text_of_prometheus_is_well_formed() {
    let metrics = Metrics::default();
    let service = Arc::<str>::from("a");
    metrics.begin_version(&service, 1);
    metrics.durations(Some(&service), Some(1), 200).observe(2.0);
    metrics.durations(None, None, 404).observe(0.1);
    metrics.waited(&service, 1, Duration::ZERO);
    let text = metrics.text(Format::Prometheus).unwrap();
    assert!(text.ends_with('\n') && !text.contains("# EOF") && !text.contains("# UNIT"));
    let (mut types, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty() && !help.contains('\\'), "{line}");
                family = name.to_owned();
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(name, family, "its HELP precedes it");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(types.insert(name, kind).is_none(), "{name} occurs twice");
            }
            _ => {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = sample.split('{').next().expect("a name");
                let base = match types[&*family] {
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix)),
                    _ => Some(name),
                };
                assert_eq!(base, Some(&*family), "{line}");
                assert!(samples.insert(sample.to_owned()), "{sample} occurs twice");
            }
        }
    }
    assert!(types.len() > 15 && samples.len() > 50);
}
