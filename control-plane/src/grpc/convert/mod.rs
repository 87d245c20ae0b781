//! Converts between `cless.v1` and the domain; no other module knows both.
//!
//! [`requests`] reads requests and collects all violations, each under its field's path.
//! [`resources`] writes resources. [`nodes`], [`feed`] and [`control`] do both for the messages of data
//! planes, [`trust`] for tokens and the audit log.
//! No module in here decides anything.

pub(crate) mod control;
pub(crate) mod feed;
pub(crate) mod nodes;
pub(crate) mod requests;
pub(crate) mod resources;
pub(crate) mod route;
pub(crate) mod settings;
pub(crate) mod trust;

use crate::domain::{Timestamp, Violations};
use std::time::{Duration, SystemTime};

pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    SystemTime::from(time).into()
}

/// A timestamp of a request. `None` if it is absent or out of range.
pub(crate) fn read_timestamp(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    SystemTime::try_from(time?).ok().map(Timestamp::from)
}

fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration of a request. A negative one is a violation at `field`; one that breaks the rules of
/// the type is refused before it is decoded.
pub(crate) fn read_duration(
    field: &str,
    span: Option<prost_types::Duration>,
    violations: &mut Violations,
) -> Option<Duration> {
    match Duration::try_from(span?) {
        Ok(span) => Some(span),
        Err(_negative) => {
            violations.push(field, "is negative: give a positive duration");
            None
        }
    }
}
