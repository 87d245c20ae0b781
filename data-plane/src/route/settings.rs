//! Settings of a service.

use std::time::Duration;

/// Settings of a service, with defaults already applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Instances kept warm per node for each version in traffic.
    pub min_instances: u32,
    /// Maximum instances per node and version; at least 1 and at least `min_instances`.
    pub max_instances: u32,
    /// Maximum concurrent requests per instance; at least 1.
    pub concurrency: u32,
    /// Idle time after which an instance is removed.
    pub idle_timeout: Duration,
    /// Idle time after which an instance is paused; `None` disables pausing.
    pub pause_after: Option<Duration>,
    /// Maximum time that a request waits for an instance.
    pub cold_start_timeout: Duration,
    /// Maximum time to the head of the response, and then without a byte; tunnels are exempt.
    pub request_timeout: Duration,
    /// Maximum time to the end of the response; `None`: no limit. Tunnels are exempt.
    pub total_timeout: Option<Duration>,
    /// Maximum requests waiting for an instance, per version and node.
    pub queue_limit: u32,
    /// Source of the affinity key.
    pub affinity: Affinity,
    /// Whether a request header may select the version.
    pub version_header: bool,
    /// Whether responses carry the phases of a cold start in `Server-Timing`.
    pub server_timing: bool,
}

impl Default for Settings {
    /// The defaults of `cless.v1.ServiceSettings`.
    fn default() -> Self {
        Self {
            min_instances: 0,
            max_instances: 10,
            concurrency: 80,
            idle_timeout: Duration::from_secs(120),
            pause_after: None,
            cold_start_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(300),
            total_timeout: None,
            queue_limit: 1000,
            affinity: Affinity::None,
            version_header: false,
            server_timing: false,
        }
    }
}

/// Source of the key that keeps a client on one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// No affinity: each request is drawn independently.
    None,
    /// A cookie set by the proxy.
    Cookie,
    /// A request header.
    Header(http::HeaderName),
}
