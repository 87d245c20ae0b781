//! How a service's versions scale, sleep and are called.

use std::time::Duration;

/// The settings of a service. Complete: defaults were filled in when it was decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Instances kept warm per node for each version in traffic.
    pub min_instances: u32,
    /// Most instances per node and version; at least 1 and at least `min_instances`.
    pub max_instances: u32,
    /// Most requests at once in one instance; at least 1.
    pub concurrency: u32,
    /// An instance without requests for this long is removed.
    pub idle_timeout: Duration,
    /// An instance without requests for this long is frozen; `None`: never.
    pub pause_after: Option<Duration>,
    /// How long a request waits for an instance.
    pub cold_start_timeout: Duration,
    /// How long a request may take to the end of its response; tunnels are exempt.
    pub request_timeout: Duration,
    /// Requests that may wait for an instance, per version and node.
    pub queue_limit: u32,
    /// What keeps a caller on one version.
    pub affinity: Affinity,
    /// A caller may choose the version by a request header.
    pub version_header: bool,
    /// Responses carry the phases of a cold start.
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
            queue_limit: 1000,
            affinity: Affinity::None,
            version_header: false,
            server_timing: false,
        }
    }
}

/// Where the key is that keeps a caller on one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Nowhere: every request is drawn anew.
    None,
    /// A cookie that the proxy sets.
    Cookie,
    /// The value of this request header.
    Header(http::HeaderName),
}
