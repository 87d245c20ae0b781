//! The `Server-Timing` field (W3C, Server Timing section 2) of a request that waited for an
//! instance: its own wait, and the phases of the start or the wake that it waited for.
//!
//! ```text
//! server-timing: cless-wait;dur=301.2, cless-queue;dur=0.0, cless-create;dur=12.1, cless-start;dur=270.4, cless-ready;dur=1.9
//! server-timing: cless-wait;dur=17.3, cless-unpause;dur=16.2
//! ```
//!
//! A request that joins a start in progress gets all phases of it, so they may exceed its wait. The
//! names have a prefix because applications send metrics of their own.

use std::time::Duration;

use http::HeaderValue;

use crate::pool::Guard;

/// `None` for a request that did not wait.
pub(crate) fn server_timing(guard: &Guard) -> Option<HeaderValue> {
    let waited = ("wait", guard.waited()?);
    let start = guard.waited_for_start().into_iter();
    let phases = start.flat_map(|start| start.phases());
    let wake = guard.waited_for_resume().map(|took| ("unpause", took));
    field([waited].into_iter().chain(phases).chain(wake))
}

fn field(metrics: impl Iterator<Item = (&'static str, Duration)>) -> Option<HeaderValue> {
    let metrics = metrics.map(|(name, took)| {
        let millis = took.as_secs_f64() * 1e3;
        format!("cless-{name};dur={millis:.1}")
    });
    let metrics: Vec<String> = metrics.collect();
    let mut value = HeaderValue::try_from(metrics.join(", ")).ok()?;
    // A unique value is useless in the table of HTTP/2.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_a_list_with_durations_in_milliseconds() {
        let metrics = [
            ("wait", Duration::from_micros(301_240)),
            ("create", Duration::from_millis(12)),
        ];
        let value = field(metrics.into_iter());
        let expected = "cless-wait;dur=301.2, cless-create;dur=12.0";
        assert_eq!(value, Some(HeaderValue::from_static(expected)));
    }
}
