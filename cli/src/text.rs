//! Formatting of durations, ages, sizes and URLs. [`clean`] makes text from outside one safe line.

use std::time::{Duration, SystemTime};

pub(crate) use cless_proto::text::one_line as clean;

/// `174ms`, `1.25s`, `30s`, `5m`, `1h30m`; rounded above a second.
pub(crate) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match millis {
        0 => format!("{}us", duration.as_micros()),
        1..1000 => format!("{millis}ms"),
        1000..60_000 => {
            let text = format!("{:.2}", duration.as_secs_f64());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => {
            let parts = [
                (seconds / 3600, "h"),
                (seconds / 60 % 60, "m"),
                (seconds % 60, "s"),
            ];
            let parts = parts.iter().filter(|(n, _)| *n > 0);
            parts.map(|(n, unit)| format!("{n}{unit}")).collect()
        }
    }
}

/// A protobuf duration; `-` if absent or negative.
pub(crate) fn proto_duration(value: Option<&prost_types::Duration>) -> String {
    let value = value.and_then(|value| Duration::try_from(*value).ok());
    value.map_or_else(|| "-".to_owned(), duration)
}

/// The age in one unit, `12s`, `5m`, `3h` or `9d`; `-` if absent.
pub(crate) fn age(now: SystemTime, time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| SystemTime::try_from(*time).ok());
    let Some(time) = time else {
        return "-".to_owned();
    };
    // A time in the future, by clock skew, counts as now.
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// RFC 3339; `-` if absent.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// `512Mi`, or bytes if it is not a multiple of a unit.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    units
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(
            || bytes.to_string(),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

/// The last segment of a resource name.
pub(crate) fn id(name: &str) -> String {
    clean(name.rsplit('/').next().unwrap_or(name))
}

/// `-` for empty text, so that no table cell is empty.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// The URL of `host` with the scheme and port of `proxy` (`http://127.0.0.1:8080`).
pub(crate) fn url(proxy: &str, host: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    let authority = rest.split('/').next().unwrap_or_default();
    // After the `]` of an IPv6 address, a colon starts the port.
    let after = authority.rsplit(']').next().unwrap_or_default();
    let port = after
        .rsplit_once(':')
        .map(|(_, port)| port)
        .unwrap_or_default();
    match (scheme, port) {
        (_, "") | ("http", "80") | ("https", "443") => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = |millis| duration(Duration::from_millis(millis));
        assert_eq!(text(174), "174ms");
        assert_eq!(text(1250), "1.25s");
        assert_eq!(text(30_000), "30s");
        assert_eq!(text(120_000), "2m");
        assert_eq!(text(5_430_000), "1h30m30s");
        assert_eq!(duration(Duration::from_micros(40)), "40us");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
        assert_eq!(age(now, Some(&at(999_988))), "12s");
        assert_eq!(age(now, Some(&at(999_000))), "16m");
        assert_eq!(age(now, Some(&at(1_000_100))), "0s");
        assert_eq!(age(now, Some(&at(0))), "11d");
        assert_eq!(age(now, None), "-");
    }

    #[test]
    fn sizes_and_urls() {
        assert_eq!(size(512 << 20), "512Mi");
        assert_eq!(size(1 << 30), "1Gi");
        assert_eq!(size(1001), "1001");
        assert_eq!(size(0), "0");
        assert_eq!(
            url("http://127.0.0.1:8080", "a.localhost"),
            "http://a.localhost:8080"
        );
        assert_eq!(url("https://[::1]", "a.example"), "https://a.example");
        assert_eq!(url("http://[::1]:9", "a.example"), "http://a.example:9");
        assert_eq!(url("http://x:80/", "a.example"), "http://a.example");
    }
}
