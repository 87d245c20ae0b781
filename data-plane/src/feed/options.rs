//! What the feed is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

/// What the feed needs to know.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// Addresses of control planes that share one state; tried in rotation.
    pub control_planes: Vec<http::Uri>,
    /// The node's name, a DNS label.
    pub node_name: String,
    /// Where the node's id and route table are kept; this node's alone.
    pub cache_dir: PathBuf,
    /// Intervals and limits; the default is the contract's.
    pub timing: Timing,
}

impl FeedOptions {
    /// With the contract's timing.
    pub fn new(control_planes: Vec<http::Uri>, node_name: String, cache_dir: PathBuf) -> Self {
        Self {
            control_planes,
            node_name,
            cache_dir,
            timing: Timing::default(),
        }
    }
}

/// Intervals and limits of the feed.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A connection is made, and Hello answered, within this.
    pub first_message: Duration,
    /// A stream on which nothing comes for this long is left. The plane beats every 10 s.
    pub silence: Duration,
    /// How long a stream lives, give or take a fifth.
    pub lifetime: Duration,
    /// The first wait after a failure is drawn from up to this.
    pub backoff_floor: Duration,
    /// No wait is longer.
    pub backoff_ceiling: Duration,
    /// Reports go out at least this often.
    pub report_interval: Duration,
    /// Changes within this make one report.
    pub report_coalesce: Duration,
    /// A report is given up after this.
    pub report_timeout: Duration,
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
        }
    }
}
