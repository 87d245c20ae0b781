//! Durations as people write them in flags.

use std::time::Duration;

/// Longer texts are refused: from 27 bytes on, `humantime` 2.4 can panic on an overflow
/// (`18446744073709551615s1000ms`).
const MAX_BYTES: usize = 26;

/// Parses `500ms`, `30s`, `1h30m`, `7d` and the other forms of [`humantime::parse_duration`];
/// `None` if the text is no duration, or exceeds 26 bytes or the range of [`Duration`].
pub fn parse(text: &str) -> Option<Duration> {
    let text = Some(text).filter(|text| text.len() <= MAX_BYTES)?;
    humantime::parse_duration(text).ok()
}

/// Writes a duration so that [`parse`] reads it back: `1h30m`, `1s500ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_limits() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1h30m15s500ms", 5_415_500),
            ("7d", 604_800_000),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(text), Some(duration), "{text}");
            assert_eq!(parse(&format(duration)), Some(duration), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "18446744073709551616s",
            "18446744073709551615s1000ms",
            "18446744073709551615s 1000ms",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
