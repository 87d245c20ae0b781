//! The text formats of a scrape: Prometheus 0.0.4 and OpenMetrics 1.0.0. Pure.
//!
//! Both have the same samples. Prometheus names a counter in its metadata as in its samples, with
//! `_total`, and has no `UNIT` and no `EOF`.

use std::fmt::Write as _;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// A media range that matches a format: its precedence, and its quality in thousandths.
type Match = (u8, u16);

impl Format {
    /// The format that the `Accept` fields of a request prefer (RFC 9110 section 12.5.1). OpenMetrics
    /// only if they name it; Prometheus otherwise, also if they accept neither.
    pub fn negotiate<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let (mut text, mut open): (Option<Match>, Option<Match>) = (None, None);
        for range in accept.flat_map(|field| field.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut version, mut quality) = (None, 1000);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match &*name.trim().to_ascii_lowercase() {
                    "version" => version = Some(value.trim().trim_matches('"')),
                    "q" => quality = self::quality(value.trim()),
                    _ => {}
                }
            }
            let is = |known: &str| version.is_none_or(|version| version == known);
            match &*media {
                "application/openmetrics-text" if is("1.0.0") => keep(&mut open, (3, quality)),
                "text/plain" if is("0.0.4") => keep(&mut text, (3, quality)),
                "text/*" => keep(&mut text, (2, quality)),
                "*/*" => keep(&mut text, (1, quality)),
                _ => {}
            }
        }
        let quality = |matched: Option<Match>| matched.map_or(0, |(_, quality)| quality);
        match quality(open) > 0 && quality(open) >= quality(text) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Keeps the match of the highest precedence, and then of the highest quality.
fn keep(kept: &mut Option<Match>, found: Match) {
    *kept = (*kept).max(Some(found));
}

/// A quality in thousandths (RFC 9110 section 12.4.2); 0 if it is malformed.
fn quality(text: &str) -> u16 {
    let quality = text.parse::<f32>().unwrap_or(0.0);
    (quality.clamp(0.0, 1.0) * 1000.0) as u16
}

/// Converts OpenMetrics, as this module's registry encodes it, to the format of Prometheus.
pub(super) fn to_prometheus(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + open.len() / 16);
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        // Writing to a `String` does not fail.
        let _ = match line.strip_prefix("# ").map(|rest| rest.split(' ')) {
            None => writeln!(text, "{line}"),
            Some(mut words) => match (words.next(), words.next()) {
                (Some("HELP"), Some(name)) => {
                    let help = line.get("# HELP ".len() + name.len()..).unwrap_or_default();
                    let kind = lines.peek().and_then(|next| next.rsplit(' ').next());
                    let suffix = suffix(kind.unwrap_or_default());
                    writeln!(text, "# HELP {name}{suffix}{help}")
                }
                (Some("TYPE"), Some(name)) => {
                    let kind = words.next().unwrap_or_default();
                    writeln!(text, "# TYPE {name}{} {kind}", suffix(kind))
                }
                // UNIT and EOF.
                _ => Ok(()),
            },
        };
    }
    text
}

/// The suffix of the samples of a type, which the name of the metric has in Prometheus.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn negotiated(accept: &str) -> Format {
        Format::negotiate(std::iter::once(accept))
    }

    #[test]
    fn openmetrics_is_sent_to_those_who_prefer_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;\
             q=0.6,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"",
                Format::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text;q=0.9",
                Format::Prometheus,
            ),
            (
                "text/plain;q=0.2, application/openmetrics-text;q=0.9",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("application/openmetrics-text;q=0, */*", Format::Prometheus),
            (
                "application/openmetrics-text;version=0.0.1",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("application/json", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(negotiated(accept), expected, "{accept}");
        }
        assert_eq!(Format::negotiate(std::iter::empty()), Format::Prometheus);
    }

    #[test]
    fn prometheus_names_a_counter_as_its_samples() {
        let open = "# HELP a_b Text, of a.\n# TYPE a_b counter\na_b_total{c=\"d # e\"} 1\n\
             # HELP f_seconds G.\n# TYPE f_seconds gauge\n# UNIT f_seconds seconds\nf_seconds 2\n# EOF\n";
        let text = "# HELP a_b_total Text, of a.\n# TYPE a_b_total counter\na_b_total{c=\"d # e\"} 1\n\
             # HELP f_seconds G.\n# TYPE f_seconds gauge\nf_seconds 2\n";
        assert_eq!(to_prometheus(open), text);
    }

    proptest! {
        #[test]
        fn any_field_is_taken(accept in "[ -~]{0,80}") {
            negotiated(&accept);
        }
    }
}
