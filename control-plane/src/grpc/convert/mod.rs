//! Between `cless.v1` and the domain: the only place that knows both.
//!
//! [`requests`] takes requests apart and notes what is wrong under the field's path in the request, all
//! at once; [`resources`] puts resources together; [`nodes`] and [`feed`] do both for what data planes
//! send and get. Nothing in here decides anything.

pub(crate) mod feed;
pub(crate) mod nodes;
pub(crate) mod requests;
pub(crate) mod resources;
pub(crate) mod route;
pub(crate) mod settings;

use crate::domain::{Timestamp, Violations};
use std::time::{Duration, SystemTime};

/// A point in time for an answer.
fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    SystemTime::from(time).into()
}

/// A point in time from a request; what is beyond all clocks is as good as none.
fn read_timestamp(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    SystemTime::try_from(time?).ok().map(Timestamp::from)
}

/// A span for an answer; all that are kept fit.
fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A span from a request; a negative one is refused under `field`.
pub(crate) fn read_duration(
    field: &str,
    span: Option<prost_types::Duration>,
    violations: &mut Violations,
) -> Option<Duration> {
    match Duration::try_from(span?) {
        Ok(span) => Some(span),
        Err(_negative) => {
            violations.push(field, "is negative or no valid span: give a positive one");
            None
        }
    }
}
