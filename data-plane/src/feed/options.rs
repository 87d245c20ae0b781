//! Options of the feed.

use crate::enrollment::TokenSource;
use std::path::PathBuf;
use std::time::Duration;

/// Options of the feed.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// Addresses of control planes that share one state; tried in rotation.
    pub control_planes: Vec<http::Uri>,
    /// Name of the node, a DNS label.
    pub node_name: String,
    /// Folder for the node id and the route table, used by this node only.
    pub cache_dir: PathBuf,
    /// The token with which a new node joins; none is needed without encryption.
    pub join_token: TokenSource,
    /// Intervals and timeouts; the contract's by default.
    pub timing: Timing,
}

impl FeedOptions {
    /// Options with the contract's timing.
    pub fn new(control_planes: Vec<http::Uri>, node_name: String, cache_dir: PathBuf) -> Self {
        Self {
            control_planes,
            node_name,
            cache_dir,
            join_token: TokenSource::None,
            timing: Timing::default(),
        }
    }
}

/// Intervals and timeouts of the feed.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Timeout for connecting, and for the first message after Hello.
    pub first_message: Duration,
    /// A stream without messages for this long is closed. Heartbeats arrive every 10 s.
    pub silence: Duration,
    /// Lifetime of a stream, jittered by 20 %.
    pub lifetime: Duration,
    /// Upper bound of the first delay after a failure.
    pub backoff_floor: Duration,
    /// Upper bound of all delays.
    pub backoff_ceiling: Duration,
    /// Maximum interval between reports.
    pub report_interval: Duration,
    /// Changes within this interval share one report.
    pub report_coalesce: Duration,
    /// Timeout of a report.
    pub report_timeout: Duration,
    /// Delay before a control plane that does not know control streams is tried again.
    pub control_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_message: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            lifetime: Duration::from_secs(30 * 60),
            backoff_floor: Duration::from_millis(100),
            backoff_ceiling: Duration::from_secs(30),
            report_interval: Duration::from_secs(10),
            report_coalesce: Duration::from_millis(100),
            report_timeout: Duration::from_secs(5),
            control_retry: Duration::from_secs(60),
        }
    }
}
