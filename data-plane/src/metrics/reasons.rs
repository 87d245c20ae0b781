//! The known reasons of counters, which start at 0: a counter that appears with its first event
//! hides that event from `rate` and `increase`.

/// Reasons of rejected requests whose version is chosen.
pub(super) const VERSION: [&str; 15] = [
    "backing_off",
    "broken",
    "broken_body",
    "engine_away",
    "late",
    "malformed_response",
    "max_wakes_per_ip",
    "protocol",
    "queue_full",
    "queue_timeout",
    "start_failed",
    "stopping",
    "unreachable",
    "upgrade_failed",
    "version_gone",
];

/// Reasons of rejected requests whose version is not chosen.
pub(super) const NO_VERSION: [&str; 15] = [
    "ambiguous",
    "bad_request",
    "broken_body",
    "expectation",
    "head_too_large",
    "method",
    "misdirected",
    "no_table",
    "no_traffic",
    "protocol",
    "slow_head",
    "target_too_long",
    "too_many_fields",
    "unknown_host",
    "unknown_version",
];

/// Whether rejects of this reason are counted from 0.
#[cfg(test)]
pub(crate) fn is_known(reason: &str) -> bool {
    VERSION.contains(&reason) || NO_VERSION.contains(&reason)
}

/// Reasons of client connections that cless refused or closed.
pub(super) const CLOSED: [&str; 12] = [
    "head_too_large",
    "idle",
    "malformed",
    "max_connections",
    "max_connections_per_ip",
    "resets",
    "slow_body",
    "slow_head",
    "slow_reader",
    "tls",
    "tunnel_age",
    "tunnel_idle",
];
