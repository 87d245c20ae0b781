//! `Server-Timing`: where the time of a request went that waited for an instance.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::instance::Guard;

/// The wait, and the phases of the start it waited for. `None` if there was no wait.
pub(super) fn server_timing(guard: &Guard) -> Option<HeaderValue> {
    let waited = guard.waited()?;
    let mut text = format!("cless-wait;dur={:.1}", millis(waited));
    let started = guard.instance().cold_start();
    let lately = SystemTime::now().checked_sub(waited + Duration::from_secs(1));
    if let (Some(start), Some(lately)) = (started, lately)
        && start.at >= lately
    {
        let phases = [
            ("pull", start.pull),
            ("queue", start.queue),
            ("create", start.create),
            ("start", start.start),
            ("ready", start.ready),
        ];
        for (phase, took) in phases {
            if let Some(took) = took {
                text.push_str(&format!(", cless-{phase};dur={:.1}", millis(took)));
            }
        }
    }
    HeaderValue::try_from(text).ok()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
