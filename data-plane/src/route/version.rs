//! One version of a service and how to run it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Names a version for ever: the key of an instance pool.
///
/// The uid, not the name: a service that is deleted and made again under one name has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// The service's uid.
    pub service_uid: Arc<str>,
    /// The version's number in that service, from 1.
    pub number: u32,
}

/// A version that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Names it.
    pub key: VersionKey,
    /// Its own uid.
    pub uid: Arc<str>,
    /// The service's name.
    pub service: Arc<str>,
    /// How to run it.
    pub spec: Spec,
    /// `sha256:…` to pull by, once a node has resolved the image in a registry.
    pub image_digest: Option<String>,
    /// Set while this node is to prove that the version starts.
    pub verify: Option<VerifyOrder>,
}

/// How a version is run. Immutable for a [`VersionKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Image reference, as the engine takes it.
    pub image: String,
    /// The port the container listens on; `None`: the image's single EXPOSE, else 8080.
    pub port: Option<u16>,
    /// Environment, by name in ascending order.
    pub env: Vec<(String, String)>,
    /// Replaces the image's ENTRYPOINT if not empty.
    pub command: Vec<String>,
    /// Replaces the image's CMD if not empty.
    pub args: Vec<String>,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// How a started container is found ready.
    pub readiness: Readiness,
    /// How patiently it is asked.
    pub probe: ProbeTimings,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// How its instances are spoken to.
    pub protocol: Protocol,
    /// Most processes and threads at once.
    pub pids_limit: u32,
    /// Nothing may be written to the image's file system.
    pub read_only_root: bool,
    /// File systems in memory: mount points in ascending order, and bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// Who the process runs as; `None`: as the image says.
    pub user: Option<String>,
    /// What asks the process to end; `None`: as the image says.
    pub stop_signal: Option<String>,
    /// From that signal to the end by force.
    pub stop_grace: Duration,
}

/// How instances are spoken to. What a client speaks is another matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, but gRPC goes over HTTP/2.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    H2c,
}

/// How a started container is found ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The port accepts a connection.
    Tcp,
    /// A GET of `path` answers with a status in the range.
    Http {
        /// Starts with `/`.
        path: String,
        /// Inclusive.
        status: RangeInclusive<u16>,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Empty: the server as a whole.
        service: String,
    },
    /// The image's HEALTHCHECK says healthy.
    Healthcheck,
}

/// How patiently a container is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTimings {
    /// The longest pause between two probes.
    pub period: Duration,
    /// A probe without an answer for this long has failed.
    pub timeout: Duration,
    /// From the start of the container to the first probe.
    pub initial_delay: Duration,
}

impl Default for ProbeTimings {
    /// What `cless.v1.ReadinessProbe` documents.
    fn default() -> Self {
        Self {
            period: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
        }
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the node does not have it.
    Missing,
    /// Before the first start of the version on a node.
    Always,
    /// Never; a missing image is an error.
    Never,
}

/// An order to prove that a version starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOrder {
    /// Names this run of the proof.
    pub id: String,
    /// It has failed if it is not done by then.
    pub deadline: SystemTime,
}
