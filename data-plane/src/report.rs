//! The report of a node's instances and versions to its control plane: plain data.
//!
//! The pools fill it and [`crate::feed`] sends it. It mirrors `ReportNodeStatusRequest` of
//! `cless.v1` without protobuf types.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::isolation;
use crate::route::VersionKey;

/// The whole state of a node at one moment. Each report replaces the previous one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// The engine's name and version; empty while it does not answer.
    pub engine: String,
    /// Conditions that a person should act on.
    pub warnings: Vec<String>,
    /// Network sandboxes.
    pub sandboxes: SandboxCounts,
    /// Every instance that is not gone.
    pub instances: Vec<InstanceReport>,
    /// Every version that this node ran or tried to run.
    pub versions: Vec<VersionReport>,
    /// The OCI runtime of containers; empty while the engine has not answered.
    pub runtime: String,
    /// The isolation of containers; `None` until it is known.
    pub isolation: Option<isolation::Status>,
    /// Capabilities that versions may add.
    pub allowed_capabilities: Vec<String>,
    /// Destinations on this node that versions may reach.
    pub allowed_egress: Vec<String>,
    /// Whether the node is out of service by request of a person.
    pub drained: bool,
}

/// The number of network sandboxes by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxCounts {
    /// Ready for a new instance.
    pub idle: usize,
    /// Used by an instance.
    pub used: usize,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceReport {
    /// Unique on the node and never reused; the last segment of the resource name.
    pub id: String,
    /// The service's name.
    pub service: Arc<str>,
    /// The version it runs.
    pub key: VersionKey,
    /// Its state.
    pub state: InstanceState,
    /// Requests in flight.
    pub in_flight: u32,
    /// When its creation began.
    pub created_at: SystemTime,
    /// The phases of its start; `None` until it is ready, and for an adopted instance.
    pub cold_start: Option<ColdStart>,
    /// The engine's id of the container, 12 characters; empty until there is one.
    pub container: String,
}

/// The state of an instance. `Gone` is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// The engine creates its container.
    Creating,
    /// The engine starts its container.
    Starting,
    /// Its container runs and is being probed.
    Probing,
    /// Accepts requests.
    Ready,
    /// The engine pauses its container.
    Pausing,
    /// Its container is paused.
    Paused,
    /// The engine resumes its container.
    Resuming,
    /// Accepts no new requests and finishes those in flight.
    Draining,
    /// Its container is stopped and removed.
    Stopping,
    /// Its container failed to start, or exited by itself.
    Failed,
}

/// A version that a node ran or tried to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionReport {
    /// The version.
    pub key: VersionKey,
    /// Its uid, never reused.
    pub version_uid: Arc<str>,
    /// The digest of its image in a registry, once a pull or a start of it succeeded on this node.
    pub image_digest: Option<String>,
    /// The image id that this node has pinned for it, if the image was never in a registry.
    pub image_id: Option<String>,
    /// Number of resets of the image that digest and id belong to.
    pub image_generation: u32,
    /// The last failed start, until a start succeeds.
    pub last_failure: Option<StartFailure>,
    /// Failed starts in a row.
    pub failures: u32,
    /// No start is tried before this time; `None` outside of a back-off.
    pub backoff_until: Option<SystemTime>,
    /// The last successful start.
    pub last_cold_start: Option<ColdStart>,
    /// The progress of a pull, as text for people; `None` if there is none.
    pub pull_progress: Option<String>,
    /// The outcome of the last verification.
    pub verify: Option<VerifyOutcome>,
    /// The port of its containers; `None` until it is known.
    pub port: Option<u16>,
}

/// The phases of a start. A phase that did not happen is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdStart {
    /// Pulling the image.
    pub pull: Option<Duration>,
    /// Waiting for the node's limit on concurrent starts.
    pub queue: Option<Duration>,
    /// The engine's create call.
    pub create: Option<Duration>,
    /// The engine's start call, or the time until the instance answered, if that is shorter.
    pub start: Option<Duration>,
    /// From then to the first successful probe.
    pub ready: Option<Duration>,
    /// From the decision to start to readiness.
    pub total: Duration,
    /// When it became ready.
    pub at: SystemTime,
}

impl ColdStart {
    /// The phases that happened, in order, with their times.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
        [
            ("pull", self.pull),
            ("queue", self.queue),
            ("create", self.create),
            ("start", self.start),
            ("ready", self.ready),
        ]
        .into_iter()
        .filter_map(|(phase, took)| Some((phase, took?)))
    }
}

/// `create=12.0 start=270.1 ready=2.0`, in milliseconds, for the log.
impl fmt::Display for ColdStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (phase, took)) in self.phases().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{phase}={:.1}", took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

/// The reason why a start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// The event and its remedy, as text for people.
    pub message: String,
    /// The container's exit code; `None` if it did not exit.
    pub exit_code: Option<i32>,
    /// Whether the kernel killed it because it exceeded its memory.
    pub oom_killed: bool,
    /// Its last lines of output, oldest first, at most 20.
    pub log_tail: Vec<String>,
    /// When it failed.
    pub at: SystemTime,
    /// The signal that its exit code encodes.
    pub signal: Option<String>,
    /// The result of the last probe, in words.
    pub last_probe: Option<String>,
    /// The engine's message, verbatim.
    pub engine_error: Option<String>,
}

/// A kind of failed start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The image is not on the node and cannot be pulled, or does not tell the port.
    Image,
    /// The engine refused to create or start the container.
    Engine,
    /// The container ended before it was ready.
    Exited,
    /// The container ran but did not become ready in time.
    NotReady,
    /// An instance sent a malformed response while it served. Its start did not fail.
    MalformedResponse,
    /// The version asks for something that the node does not allow.
    NotAllowed,
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// The id of the verification.
    pub id: String,
    /// Its result so far.
    pub result: VerifyResult,
}

/// The result of a verification so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyResult {
    /// An instance is starting.
    Pending,
    /// An instance became ready.
    Verified(ColdStart),
    /// The instance failed to start, by the version's own fault.
    Failed(StartFailure),
    /// The node cannot tell, for a reason of its own, such as an engine that does not answer.
    Unverified(StartFailure),
}

/// The image that a reference names on this node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The origin of the answer.
    pub source: ImageSource,
    /// Id of the image in the engine; `None` if this node has not pulled it.
    pub id: Option<String>,
    /// Digest of the image in its registry; `None` if it was never in one.
    pub digest: Option<String>,
    /// Build time of the image; `None` if unknown.
    pub created: Option<SystemTime>,
    /// Time of the answer.
    pub resolved_at: SystemTime,
    /// A doubt about the answer, as text for people.
    pub warning: Option<String>,
}

/// The answer to a question for an image. [`FailureReason::Image`]: the reference names none; any other
/// reason is trouble of the node.
pub type Resolution = Result<ResolvedImage, Box<StartFailure>>;

/// The origin of a [`ResolvedImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The registry responded.
    Registry,
    /// The registry did not respond; the node has a copy of the image.
    LocalCopy,
    /// The image was never in a registry.
    LocalImage,
}

impl StartFailure {
    /// A failure without an exit.
    pub fn new(reason: FailureReason, message: String, at: SystemTime) -> Self {
        Self {
            reason,
            message,
            exit_code: None,
            oom_killed: false,
            log_tail: Vec::new(),
            at,
            signal: None,
            last_probe: None,
            engine_error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_the_phases_that_happened() {
        let cold_start = ColdStart {
            pull: None,
            queue: None,
            create: Some(Duration::from_millis(12)),
            start: None,
            ready: Some(Duration::from_micros(1500)),
            total: Duration::from_millis(20),
            at: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(cold_start.to_string(), "create=12.0 ready=1.5");
    }
}
