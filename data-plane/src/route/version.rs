//! One version of a service and how to run it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

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
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// How its instances are spoken to.
    pub protocol: Protocol,
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
