//! Values in the forms of compose. Each returns `None` for an invalid text.

use std::time::Duration;

/// Bytes: a number with `b`, `k`, `m`, `g` or `t` (powers of 1024) in any case, with or without `b`
/// or `ib` after it.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = unit.trim_start();
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let fraction: f64 = number.parse().ok()?;
    let bytes = fraction * factor as f64;
    // 2^53: exact in a float.
    (bytes < 9_007_199_254_740_992.0).then_some(bytes as u64)
}

/// Thousandths of a core, rounded up, from a number of cores.
pub(super) fn millis(text: &str) -> Option<u32> {
    let cores: f64 = text.trim().parse().ok()?;
    let millis = (cores * 1000.0 - 1e-6).ceil();
    (cores.is_sign_positive() && millis < 1e9).then_some(millis as u32)
}

/// A duration such as `1m30s`; also `1.5s`, as Go writes it.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if let Some(parsed) = cless_proto::duration::parse(text) {
        return Some(parsed);
    }
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A port from 1.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port > 0 && digits)
}

/// The id of a service for a name of compose, which also has `_`, `.` and capitals.
pub(super) fn id(name: &str) -> String {
    let mut id = String::new();
    for character in name.chars().take(200) {
        let character = character.to_ascii_lowercase();
        let character = if matches!(character, 'a'..='z' | '0'..='9') {
            character
        } else {
            '-'
        };
        if character != '-' || !(id.is_empty() || id.ends_with('-')) {
            id.push(character);
        }
    }
    id.trim_end_matches('-').to_owned()
}
