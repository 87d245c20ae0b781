//! The operations that cless needs from a container engine.
//!
//! [`Runtime`] separates decisions from the engine. [`docker`] implements it with bollard, whose
//! types stay inside that module; `fake` implements it with a script for tests. All values are
//! plain data in the terms of cless.
//!
//! Invariants:
//! - A container is known by the name of its creation, also after a rename in the engine.
//! - Stopping or removing a missing object succeeds, so cleanup can be repeated.
//! - Every method has a timeout: an unresponsive engine yields [`Error::NoResponse`], never a
//!   stuck task.
//!
//! After [`Error::NoResponse`] or [`Error::Failed`] the outcome is unknown; callers that need it
//! inspect the container.

pub mod credentials;
pub mod docker;
#[cfg(feature = "test-util")]
pub mod fake;
pub mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures_util::stream::BoxStream;

/// Labels that identify the owner and purpose of a container.
pub mod label {
    /// Id of the cluster, created by the control plane.
    pub const CLUSTER: &str = "cless.cluster";
    /// Random id of the node that created the container.
    pub const NODE: &str = "cless.node";
    /// Name of the service, for people.
    pub const SERVICE: &str = "cless.service";
    /// Number of the version.
    pub const VERSION: &str = "cless.version";
    /// Uid of the service, never reused.
    pub const UID: &str = "cless.uid";
    /// Boot id of the node's process that created the container.
    pub const BOOT: &str = "cless.boot";
    /// Port of the container, for probing an adopted one.
    pub const PORT: &str = "cless.port";
    /// Number of resets of the version's image before the container was created; absent: 0.
    pub const IMAGE_GENERATION: &str = "cless.image-generation";
    /// The name that the node gave the container. The engine's own name may be changed by anyone.
    pub const INSTANCE: &str = "cless.instance";
    /// Digest of the image, if known.
    pub const DIGEST: &str = "cless.digest";
    /// Purpose of a container that is not an instance: [`SANDBOX`].
    pub const ROLE: &str = "cless.role";
    /// Role of a pause container, which holds the network of an instance.
    pub const SANDBOX: &str = "sandbox";
}

/// Failures of engine calls.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The image is missing on this node.
    #[error("image {image} is not on this node")]
    ImageMissing {
        /// The image as requested.
        image: String,
    },
    /// The pull failed.
    #[error("cannot pull {image}: {message}")]
    Pull {
        /// The image as requested.
        image: String,
        /// Message of the engine or the registry.
        message: String,
    },
    /// The registry denied access, or the image does not exist.
    #[error("cannot pull {image}: {message}")]
    Denied {
        /// The image as requested.
        image: String,
        /// Message of the registry.
        message: String,
        /// The remedy.
        remedy: String,
    },
    /// The registry did not respond, or failed.
    #[error("the registry of {image} did not respond: {message}")]
    RegistryUnavailable {
        /// The image as requested.
        image: String,
        /// Message of the engine or the registry.
        message: String,
    },
    /// The registry credentials of the node are unavailable.
    #[error("cannot pull {image}: {message}")]
    Credentials {
        /// The image as requested.
        image: String,
        /// Problem and remedy, without secrets.
        message: String,
    },
    /// The container or network does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The engine refused; a retry would be refused too.
    #[error("the engine refused: {0}")]
    Refused(String),
    /// The engine did not respond: the operation may have happened, or may still happen.
    #[error("the engine did not respond: {0}")]
    NoResponse(String),
    /// The engine was unreachable: the request was not sent.
    #[error("the engine is unreachable: {0}")]
    NotSent(String),
    /// The engine reported a failure; the operation may have happened regardless.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// The disk of the engine is full.
    #[error("the engine is out of disk space: {0}")]
    NoSpace(String),
    /// A container with that name exists.
    #[error("the engine refused: {0}")]
    NameTaken(String),
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Id of the image in the engine.
    pub id: String,
    /// Exposed TCP ports in ascending order.
    pub exposed: Vec<u16>,
    /// All tags of the image, as `repository:tag`.
    pub tags: Vec<String>,
    /// Digests of the image, as `repository@sha256:…` per source registry.
    pub repo_digests: Vec<String>,
    /// Build time; `None` if the image does not say it.
    pub created: Option<SystemTime>,
}

/// A progress message of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullStep {
    /// The layer; `None` for messages about the whole image.
    pub layer: Option<String>,
    /// Status as reported by the engine.
    pub status: String,
    /// Bytes transferred so far; `None` if not reported.
    pub current: Option<u64>,
    /// Total bytes; `None` if unknown.
    pub total: Option<u64>,
}

/// A container to create. Privileged mode, host namespaces, bind mounts and devices have no field,
/// so they cannot be requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique name of service, version and a nonce. It identifies the container if the response to
    /// the create is lost.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Environment as `K=V`.
    pub env: Vec<String>,
    /// Replacement for ENTRYPOINT; empty keeps the image's.
    pub command: Vec<String>,
    /// Replacement for CMD; empty keeps the image's.
    pub args: Vec<String>,
    /// Labels; see [`label`].
    pub labels: BTreeMap<String, String>,
    /// Memory limit in bytes.
    pub memory: u64,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Network to join.
    pub network: String,
    /// Maximum number of processes and threads.
    pub pids_limit: u32,
    /// Whether only `tmpfs` mounts are writable.
    pub read_only_root: bool,
    /// In-memory file systems: pairs of mount point and size in bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// User of the process; `None` uses the image's.
    pub user: Option<String>,
    /// Signal that requests termination; `None` uses the image's.
    pub stop_signal: Option<String>,
    /// Time from the stop signal to SIGKILL when the engine stops the container.
    pub stop_grace: Duration,
    /// Runtime of the engine; `None` uses its default.
    pub runtime: Option<String>,
    /// Engine id of the sandbox whose network to use instead of a new one on `network`.
    pub sandbox: Option<String>,
    /// Options that few containers use.
    pub options: ContainerOptions,
}

/// Options of a container that few use; the default is none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerOptions {
    /// Whether the process runs as PID 1, without an init.
    pub no_init: bool,
    /// Capabilities beyond those of every container.
    pub cap_add: Vec<String>,
    /// Mount points of `tmpfs` from which programs can be run.
    pub tmpfs_exec: Vec<String>,
    /// Size of `/dev/shm` in bytes; `None` uses the engine's default.
    pub shm_bytes: Option<u64>,
    /// Resource limits of processes: name, soft and hard limit; -1 means unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Ignored in a sandbox, which has its own.
    pub names: NetworkNames,
}

/// The names that a network knows beyond those of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkNames {
    /// Additional lines of `/etc/hosts`: pairs of host name and address.
    pub hosts: Vec<(String, String)>,
    /// Name servers; empty uses the node's.
    pub dns: Vec<IpAddr>,
}

impl NetworkNames {
    /// Whether the engine's names suffice.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.dns.is_empty()
    }
}

/// A pause container, which holds the network of one other container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Unique name.
    pub name: String,
    /// Labels; see [`label`].
    pub labels: BTreeMap<String, String>,
    /// Network to join.
    pub network: String,
    /// Additional names.
    pub names: NetworkNames,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Created but never started.
    Created,
    /// The process is running.
    Running,
    /// The process is paused.
    Paused,
    /// The process ended, or the container is being removed.
    Exited,
}

/// A container as described by the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Id of the container in the engine.
    pub id: String,
    /// Name given at its creation.
    pub name: String,
    /// Labels; see [`label`].
    pub labels: BTreeMap<String, String>,
    /// State of the container.
    pub state: ContainerState,
    /// Address on the network of its creation; `None` if it is not running, was disconnected, or uses
    /// a sandbox's network.
    pub address: Option<IpAddr>,
    /// Engine id of the sandbox whose network it uses; `None` without one.
    pub sandbox: Option<String>,
    /// Exit status; meaningful only after the process ended.
    pub exit: Exit,
    /// The image's HEALTHCHECK; `None` without one, and in lists.
    pub healthcheck: Option<Healthcheck>,
    /// The program of its entry point as given: a path, or a name to look up; empty in lists.
    pub program: String,
}

/// The HEALTHCHECK of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Time limit of one run.
    pub timeout: Duration,
}

/// The end of a command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Exit code.
    pub code: i64,
    /// The last lines of its output, oldest first.
    pub output: Vec<String>,
}

/// Runtimes (`runc`, `runsc`) of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runtimes {
    /// Names in ascending order.
    pub offered: Vec<String>,
    /// The default runtime.
    pub default: String,
}

/// Exit status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit code; by convention 128 + n for a process killed by signal n.
    pub code: i32,
    /// Whether the kernel killed the process for exceeding its memory.
    pub oom_killed: bool,
}

/// An event about the containers of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// The stream (re)connected. Earlier events may be lost, so reread everything.
    Connected,
    /// The stream ended because the engine or the connection failed.
    Disconnected,
    /// The process of a container ended.
    Died {
        /// Name of the container.
        name: String,
        /// Labels of the container.
        labels: BTreeMap<String, String>,
        /// Exit code; `None` if the engine does not report it.
        exit_code: Option<i32>,
    },
    /// The processes of a container were paused or resumed, by this node or by another program.
    PauseChanged {
        /// Name of the container.
        name: String,
        /// Labels of the container.
        labels: BTreeMap<String, String>,
        /// Whether they are paused.
        paused: bool,
    },
    /// A container left a network, which it also does at its end.
    NetworkLeft {
        /// Id of the container in the engine.
        container: String,
    },
    /// A network was removed.
    NetworkRemoved {
        /// Name of the network.
        name: String,
    },
    /// The HEALTHCHECK of a container became unhealthy.
    Unhealthy {
        /// Name of the container.
        name: String,
        /// Labels of the container.
        labels: BTreeMap<String, String>,
    },
}

/// A container engine. The module documentation lists the invariants.
#[async_trait::async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the engine, for `node get`.
    async fn engine(&self) -> Result<String, Error>;

    /// The available runtimes.
    async fn runtimes(&self) -> Result<Runtimes, Error>;

    /// Describes an image on this node.
    async fn image(&self, image: &str) -> Result<Image, Error>;

    /// Pulls an image and returns its digest in the registry, if reported. `progress` is called for
    /// each progress message.
    async fn pull(
        &self,
        image: &str,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<Option<String>, Error>;

    /// The digest that a reference has in its registry now. [`Error::Pull`]: the registry has no such
    /// image.
    async fn registry_digest(&self, image: &str) -> Result<String, Error>;

    /// Ids of the images used by any container of the engine, running or not.
    async fn images_in_use(&self) -> Result<BTreeSet<String>, Error>;

    /// Removes a name from an image, and the image with its last name; succeeds if it is missing.
    /// Refused while a container uses the image.
    async fn remove_image(&self, name: &str) -> Result<(), Error>;

    /// Creates a container without starting it and returns its id.
    async fn create(&self, spec: &ContainerSpec) -> Result<String, Error>;

    /// Creates a pause container without starting it and returns its id. Imports its image if
    /// missing; returns [`Error::Refused`] on an unsupported architecture.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error>;

    /// Removes the image of pause containers; succeeds if it is missing or in use by another node.
    async fn remove_sandbox_image(&self) -> Result<(), Error>;

    /// Starts a container; succeeds if it is running.
    async fn start(&self, name: &str) -> Result<(), Error>;

    /// Pauses the processes of a container in memory; succeeds if they are paused.
    async fn pause(&self, name: &str) -> Result<(), Error>;

    /// Resumes paused processes; succeeds if they are not paused.
    async fn unpause(&self, name: &str) -> Result<(), Error>;

    /// Describes a container by name or id.
    async fn inspect(&self, name: &str) -> Result<Container, Error>;

    /// All containers of a node, running or not.
    async fn list(&self, node: &str) -> Result<Vec<Container>, Error>;

    /// Sends the stop signal, and SIGKILL after `grace`, rounded up to whole seconds. A paused
    /// container is resumed for that.
    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error>;

    /// Removes a container and kills its process.
    async fn remove(&self, name: &str) -> Result<(), Error>;

    /// Runs a command in a running container as its user, and waits for its end.
    async fn exec(&self, name: &str, command: &[String]) -> Result<Executed, Error>;

    /// The permitted capabilities of a file in a container, as the kernel's bit set; 0 without any.
    /// A symbolic link is followed.
    async fn file_capabilities(&self, name: &str, path: &str) -> Result<u64, Error>;

    /// The last `lines` lines of output, oldest first, each cut at 512 bytes.
    async fn log_tail(&self, name: &str, lines: usize) -> Result<Vec<String>, Error>;

    /// Events about the containers of a node, and about networks, from now on. The stream is endless and reconnects.
    fn events(&self, node: &str) -> BoxStream<'static, EngineEvent>;

    /// Creates the node's network if it is missing: a bridge whose containers cannot reach each
    /// other. A new bridge interface is named `bridge`; returns the actual name.
    async fn ensure_network(
        &self,
        name: &str,
        bridge: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, Error>;

    /// Interface of a network's bridge.
    async fn bridge(&self, network: &str) -> Result<String, Error>;

    /// Removes a network; succeeds if it is missing.
    async fn remove_network(&self, name: &str) -> Result<(), Error>;
}
