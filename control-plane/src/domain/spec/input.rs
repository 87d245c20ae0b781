//! An unchecked specification in a request; zero and absence mean the default.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Protocol, PullPolicy, Ulimit};

/// A [`Readiness`](super::Readiness) in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadinessInput {
    /// TCP, the default.
    #[default]
    Tcp,
    /// HTTP; 0 means the default.
    #[expect(
        missing_docs,
        reason = "the fields of cless.v1.HttpProbe, documented there"
    )]
    Http {
        path: String,
        status_min: u32,
        status_max: u32,
        host: String,
    },
    /// gRPC.
    #[expect(
        missing_docs,
        reason = "the fields of cless.v1.GrpcProbe, documented there"
    )]
    Grpc { service: String },
    /// The image's HEALTHCHECK.
    Healthcheck,
}

/// The timings of a probe in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the fields of cless.v1.ReadinessProbe, documented there"
)]
pub struct ProbeTimingsInput {
    pub period: Option<Duration>,
    pub timeout: Option<Duration>,
    pub initial_delay: Option<Duration>,
}

/// A [`VersionSpec`](super::VersionSpec) in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the fields of cless.v1.VersionSpec, documented there"
)]
pub struct VersionSpecInput {
    pub image: String,
    pub port: u32,
    pub env: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    pub readiness: ReadinessInput,
    pub probe: ProbeTimingsInput,
    pub pull_policy: PullPolicy,
    pub protocol: Protocol,
    pub pids_limit: u32,
    pub read_only_root: bool,
    pub tmpfs: BTreeMap<String, u64>,
    pub user: String,
    pub stop_signal: String,
    pub stop_grace: Option<Duration>,
    pub no_init: bool,
    pub cap_add: Vec<String>,
    pub tmpfs_exec: Vec<String>,
    pub shm_bytes: u64,
    pub ulimits: Vec<Ulimit>,
    pub extra_hosts: BTreeMap<String, String>,
    pub dns: Vec<String>,
    pub egress: Vec<String>,
}
