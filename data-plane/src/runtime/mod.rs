//! What cless asks of a container engine, and nothing more.
//!
//! [`Runtime`] is the seam between decisions and the engine: [`docker`] implements it over bollard
//! (the only module that names bollard), `fake` with a script for tests of what an engine cannot
//! be made to do on demand. Values here are plain data in the terms of cless, not of the engine.
//!
//! Invariants:
//! - stopping or removing what is gone is success, so every clean-up may be repeated;
//! - no method waits for longer than its own time limit: an engine that hangs yields
//!   [`Error::NoResponse`], never a stuck task.
//!
//! An [`Error::NoResponse`] or [`Error::Failed`] says nothing of what was done: who must know asks
//! again, as `engine::confirmed_calls` does.

pub mod credentials;
pub mod docker;
#[cfg(feature = "test-util")]
pub mod fake;
pub mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::stream::BoxStream;

/// Labels that say whose a container is.
pub mod label {
    /// The cluster: minted once by the control plane.
    pub const CLUSTER: &str = "cless.cluster";
    /// The random id of the node that made it.
    pub const NODE: &str = "cless.node";
    /// The service's name, for people.
    pub const SERVICE: &str = "cless.service";
    /// The version's number.
    pub const VERSION: &str = "cless.version";
    /// The service's uid, which is never reused.
    pub const UID: &str = "cless.uid";
    /// The start of the node's process that made it.
    pub const BOOT: &str = "cless.boot";
    /// The port it listens on, so that an adopted container can be probed.
    pub const PORT: &str = "cless.port";
    /// The digest of the image it runs, if that is known.
    pub const DIGEST: &str = "cless.digest";
    /// What a container is there for, if it is no instance: [`SANDBOX`].
    pub const ROLE: &str = "cless.role";
    /// The role of a pause container, which holds a network for an instance.
    pub const SANDBOX: &str = "sandbox";
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The image is not on this node.
    #[error("image {image} is not on this node")]
    ImageMissing {
        /// As asked for.
        image: String,
    },
    /// The image could not be fetched.
    #[error("cannot pull {image}: {message}")]
    Pull {
        /// As asked for.
        image: String,
        /// As the engine or the registry said.
        message: String,
    },
    /// The registry has no such image for those who ask with what this node knows.
    #[error("cannot pull {image}: {message}")]
    Denied {
        /// As asked for.
        image: String,
        /// As the registry said.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// The node's credentials for the registry cannot be had.
    #[error("cannot pull {image}: {message}")]
    Credentials {
        /// As asked for.
        image: String,
        /// What is wrong, and what to do; without any secret.
        message: String,
    },
    /// There is no such container or network.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The engine understood and said no; asking again changes nothing.
    #[error("the engine refused: {0}")]
    Refused(String),
    /// The engine gave no answer: it may have done what was asked, or do it yet.
    #[error("the engine does not answer: {0}")]
    NoResponse(String),
    /// The engine cannot be reached: it was asked for nothing.
    #[error("the engine is not there: {0}")]
    NotSent(String),
    /// The engine says that it failed; it may have done what was asked all the same.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// The engine's disk is full.
    #[error("the engine is out of disk space: {0}")]
    NoSpace(String),
    /// A container of that name exists.
    #[error("the engine refused: {0}")]
    NameTaken(String),
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id.
    pub id: String,
    /// TCP ports of EXPOSE, ascending.
    pub exposed: Vec<u16>,
    /// `repository:tag`, all that point to it.
    pub tags: Vec<String>,
    /// `repository@sha256:…` for each registry it came from.
    pub repo_digests: Vec<String>,
}

/// One word of the engine about a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullStep {
    /// The layer it is about, if one.
    pub layer: Option<String>,
    /// What is done to it, in the engine's words.
    pub status: String,
    /// Bytes done.
    pub current: Option<u64>,
    /// Of how many.
    pub total: Option<u64>,
}

/// All that a container of cless may be. What cannot be said here cannot be asked for: privileged
/// mode, host namespaces, bind mounts and devices have no field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique: service, version and a nonce. A lost answer to a create is found by it.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// `K=V`.
    pub env: Vec<String>,
    /// Replaces ENTRYPOINT unless empty.
    pub command: Vec<String>,
    /// Replaces CMD unless empty.
    pub args: Vec<String>,
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// The network to join.
    pub network: String,
    /// Most processes and threads at once.
    pub pids_limit: u32,
    /// Nothing may be written but to `tmpfs`.
    pub read_only_root: bool,
    /// File systems in memory: mount points and bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// Who the process runs as; `None`: as the image says.
    pub user: Option<String>,
    /// What asks the process to end; `None`: as the image says.
    pub stop_signal: Option<String>,
    /// From that signal to the end by force, if it is the engine that stops it.
    pub stop_grace: Duration,
    /// The engine's runtime; `None`: its default.
    pub runtime: Option<String>,
    /// The engine's id of a sandbox, to use its network instead of a new one on `network`.
    pub sandbox: Option<String>,
}

/// A pause container: it does nothing but hold a network for one other container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Unique.
    pub name: String,
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// The network to join.
    pub network: String,
}

/// Where a container is in its life, as the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Its process ended, or the engine is removing it.
    Exited,
}

/// A container as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// Whose it is.
    pub labels: BTreeMap<String, String>,
    /// Running or not.
    pub state: ContainerState,
    /// Its address on its network, while it runs; none if it uses that of a sandbox.
    pub address: Option<IpAddr>,
    /// The engine's id of the sandbox whose network it uses.
    pub sandbox: Option<String>,
    /// How its process ended; meaningful if it did.
    pub exit: Exit,
    /// What the image's HEALTHCHECK says; `None` if it has none, and in lists.
    pub health: Option<Health>,
}

/// What an image's HEALTHCHECK says of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has not said yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// As many checks in a row as the image allows have failed; with the output of the last.
    Unhealthy(String),
}

/// The runtimes (`runc`, `runsc`) that an engine can run containers under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runtimes {
    /// Their names, in ascending order.
    pub offered: Vec<String>,
    /// The one it takes unless told.
    pub default: String,
}

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Above 128: 128 + the signal, by convention of shells and engines.
    pub code: i32,
    /// Ended by the kernel for want of memory.
    pub oom_killed: bool,
}

/// Something that happened to a container of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stream (re)connected: what happened before may be missed, so reread everything.
    Connected,
    /// The stream ended, for the engine's sake or for that of what is between.
    Disconnected,
    /// A container's process ended.
    Died {
        /// The container's name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// A container's HEALTHCHECK says that it is not well.
    Unhealthy {
        /// The container's name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
}

/// A container engine. See the module for its invariants.
#[async_trait::async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The engine's name and version, for `node get`.
    async fn engine(&self) -> Result<String, Error>;

    /// What it can run containers under.
    async fn runtimes(&self) -> Result<Runtimes, Error>;

    /// What is known of an image on this node.
    async fn image(&self, image: &str) -> Result<Image, Error>;

    /// Fetches an image from its registry, and gives the digest that the registry has it under, if
    /// it said so. `progress` is called with each word of the engine.
    async fn pull(
        &self,
        image: &str,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<Option<String>, Error>;

    /// The ids of the images that containers of the engine use, running or not, whosever they are.
    async fn images_in_use(&self) -> Result<BTreeSet<String>, Error>;

    /// Takes a name off an image, and removes the image with its last name; success if it is gone.
    /// Refused while a container needs it.
    async fn remove_image(&self, name: &str) -> Result<(), Error>;

    /// Makes a container and returns its id; does not start it.
    async fn create(&self, spec: &ContainerSpec) -> Result<String, Error>;

    /// Makes a pause container and returns its id; does not start it. Its image is made too, if it is
    /// missing; [`Error::Refused`] if there is none for the engine's architecture.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error>;

    /// Removes the image of pause containers; success if it is gone, or in use by another node.
    async fn remove_sandbox_image(&self) -> Result<(), Error>;

    /// Starts a container; success if it already runs.
    async fn start(&self, name: &str) -> Result<(), Error>;

    /// Freezes a container's processes, which keep their memory; success if they are frozen.
    async fn pause(&self, name: &str) -> Result<(), Error>;

    /// Lets frozen processes go on; success if they are not frozen.
    async fn unpause(&self, name: &str) -> Result<(), Error>;

    /// Describes one container by name or id.
    async fn inspect(&self, name: &str) -> Result<Container, Error>;

    /// All containers of a node, running or not.
    async fn list(&self, node: &str) -> Result<Vec<Container>, Error>;

    /// Asks the process to end, by its stop signal, and after `grace` ends it; a frozen one is thawed
    /// for that. A part of a second of `grace` counts as a whole one.
    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error>;

    /// Removes a container, ending its process if it still runs.
    async fn remove(&self, name: &str) -> Result<(), Error>;

    /// The last `lines` lines of output, oldest first, each cut at 512 bytes.
    async fn log_tail(&self, name: &str, lines: usize) -> Result<Vec<String>, Error>;

    /// What happens to the containers of a node from now on. Reconnects by itself, forever.
    fn events(&self, node: &str) -> BoxStream<'static, Event>;

    /// Makes the node's network if it is missing: a bridge on which containers cannot reach each
    /// other. Its interface is named `bridge`, if it is made now; returns how it is named.
    async fn ensure_network(
        &self,
        name: &str,
        bridge: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, Error>;

    /// The interface of a network's bridge.
    async fn bridge(&self, network: &str) -> Result<String, Error>;

    /// Removes a network; success if it is gone.
    async fn remove_network(&self, name: &str) -> Result<(), Error>;
}
