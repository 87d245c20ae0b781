//! A version of a service and how to run it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cless_proto::endpoint::Endpoint;

/// Permanent identity of a version, and the key of its instance pool.
///
/// It contains the uid rather than the name: a service deleted and recreated under the same name
/// has another uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// Uid of the service.
    pub service_uid: Arc<str>,
    /// Number of the version within the service, starting at 1.
    pub number: u32,
}

/// A reachable version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Identity of the version.
    pub key: VersionKey,
    /// Uid of the version.
    pub uid: Arc<str>,
    /// Name of the service.
    pub service: Arc<str>,
    /// Default host of the service, which its HTTP probes send; empty if it has none.
    pub host: Arc<str>,
    /// The specification of its containers.
    pub spec: Spec,
    /// Digest to pull by (`sha256:…`); `None` until the image is resolved in a registry.
    pub image_digest: Option<String>,
    /// Id of the image that the reference named, if it was never in a registry; `None` if unknown.
    pub image_id: Option<String>,
    /// Number of resets of the image; ids pinned under another number do not hold.
    pub image_generation: u32,
    /// The verification requested of this node; `None` if none is.
    pub verify: Option<VerifyOrder>,
}

/// The specification of a version's containers. Immutable for a given [`VersionKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Image reference as the engine accepts it.
    pub image: String,
    /// Port of the container; `None` means the image's single EXPOSE, 8080 if it has none.
    pub port: Option<u16>,
    /// Environment variables in ascending order of name.
    pub env: Vec<(String, String)>,
    /// Replacement for the image's ENTRYPOINT; empty keeps it.
    pub command: Vec<String>,
    /// Replacement for the image's CMD; empty keeps it.
    pub args: Vec<String>,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Readiness check of a started container.
    pub readiness: Readiness,
    /// Intervals and timeouts of the readiness check.
    pub probe: ProbeTimings,
    /// When to pull the image.
    pub pull_policy: PullPolicy,
    /// Protocol of requests to instances.
    pub protocol: Protocol,
    /// Maximum number of processes and threads.
    pub pids_limit: u32,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// In-memory file systems: pairs of mount point, in ascending order, and size in bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// User of the process; `None` uses the image's.
    pub user: Option<String>,
    /// Signal that requests termination; `None` uses the image's.
    pub stop_signal: Option<String>,
    /// Time from the stop signal to SIGKILL.
    pub stop_grace: Duration,
    /// Options that few versions use.
    pub options: ContainerOptions,
}

/// Options of a container that few versions use; the default is none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerOptions {
    /// Whether the process runs as PID 1, without an init.
    pub no_init: bool,
    /// Capabilities beyond those of every container, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Mount points of `tmpfs` from which programs can be run.
    pub tmpfs_exec: Vec<String>,
    /// Size of `/dev/shm` in bytes; `None` uses the engine's default.
    pub shm_bytes: Option<u64>,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Additional lines of `/etc/hosts`: pairs of host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers; empty uses the node's.
    pub dns: Vec<IpAddr>,
    /// Destinations on this node that the container may reach.
    pub egress: Vec<Endpoint>,
}

/// A resource limit of processes; -1 means unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Name of the engine, such as `nofile`.
    pub name: String,
    /// The limit in force.
    pub soft: i64,
    /// The highest limit that a process may set.
    pub hard: i64,
}

/// Protocol of requests to instances, independent of the client's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, but HTTP/2 for gRPC.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    H2c,
}

/// Readiness check of a started container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The port accepts a connection.
    Tcp,
    /// A GET of `path` returns a status in the range.
    Http {
        /// Path that starts with `/`.
        path: String,
        /// Inclusive range of statuses.
        status: RangeInclusive<u16>,
        /// Host header; empty for the service's default host.
        host: String,
    },
    /// `grpc.health.v1.Health/Check` returns SERVING.
    Grpc {
        /// Service to check; empty means the whole server.
        service: String,
    },
    /// The command of the image's HEALTHCHECK exits with 0.
    Healthcheck,
}

/// Intervals and timeouts of the readiness check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTimings {
    /// Maximum interval between two probes.
    pub period: Duration,
    /// Timeout of one probe.
    pub timeout: Duration,
    /// Delay from the start of the container to the first probe.
    pub initial_delay: Duration,
}

impl Default for ProbeTimings {
    /// The defaults of `cless.v1.ReadinessProbe`.
    fn default() -> Self {
        Self {
            period: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
        }
    }
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the image is missing on the node.
    Missing,
    /// Before the first start of the version on a node.
    Always,
    /// Never; a missing image is an error.
    Never,
}

/// A request to verify that a version starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOrder {
    /// Id of this verification.
    pub id: String,
    /// Time at which an unfinished verification fails.
    pub deadline: SystemTime,
}
