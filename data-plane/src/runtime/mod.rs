//! What cless asks of a container engine, and nothing more.
//!
//! [`Runtime`] is the seam between decisions and the engine: [`docker`] implements it over bollard
//! (the only module that names bollard), `fake` with a script for tests of what an engine cannot
//! be made to do on demand. Values here are plain data in the terms of cless, not of the engine.
//!
//! Invariants:
//! - stopping or removing what is gone is success, so every clean-up may be repeated;
//! - no method waits for longer than its own time limit: an engine that hangs yields
//!   [`Error::Unavailable`], never a stuck task.

pub mod docker;
#[cfg(feature = "test-util")]
pub mod fake;

use std::collections::BTreeMap;
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
    /// There is no such container or network.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The engine understood and said no; asking again changes nothing.
    #[error("the engine refused: {0}")]
    Refused(String),
    /// The engine does not answer, or failed by its own word.
    #[error("the engine does not answer: {0}")]
    Unavailable(String),
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id.
    pub id: String,
    /// TCP ports of EXPOSE, ascending.
    pub exposed: Vec<u16>,
    /// `repository@sha256:…` for each registry it came from.
    pub repo_digests: Vec<String>,
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
    /// A container's process ended.
    Died {
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

    /// What is known of an image on this node.
    async fn image(&self, image: &str) -> Result<Image, Error>;

    /// Fetches an image from its registry. `progress` is called with a line for a person.
    async fn pull(
        &self,
        image: &str,
        progress: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<(), Error>;

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

    /// Asks the process to end, and after `grace` ends it; a frozen one is thawed for that.
    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error>;

    /// Removes a container, ending its process if it still runs.
    async fn remove(&self, name: &str) -> Result<(), Error>;

    /// The last `lines` lines of output, oldest first, each cut at 512 bytes.
    async fn log_tail(&self, name: &str, lines: usize) -> Result<Vec<String>, Error>;

    /// What happens to the containers of a node from now on. Reconnects by itself, forever.
    fn events(&self, node: &str) -> BoxStream<'static, Event>;

    /// Makes the node's network if it is missing: a bridge on which containers cannot reach each
    /// other.
    async fn ensure_network(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error>;

    /// Removes a network; success if it is gone.
    async fn remove_network(&self, name: &str) -> Result<(), Error>;
}
