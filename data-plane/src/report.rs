//! What a node tells the control plane of its instances and versions: plain data.
//!
//! The pools fill these in, [`crate::feed`] sends them. They mirror `ReportNodeStatusRequest` of
//! `cless.v1`, with owned values and without its encoding, so that nothing here knows protobuf.

use crate::isolation;
use crate::route::VersionKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The whole state of a node, as of one moment. Each report replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// The engine and its version, as the engine says; empty while it does not answer.
    pub engine: String,
    /// Conditions to act on, for a person.
    pub warnings: Vec<String>,
    /// Network sandboxes.
    pub sandboxes: SandboxCounts,
    /// Every instance that is not gone.
    pub instances: Vec<InstanceReport>,
    /// Every version this node has run, or tried to run.
    pub versions: Vec<VersionReport>,
    /// The engine's runtime that containers run under; empty while it has not said.
    pub runtime: String,
    /// How far containers are kept apart, once that was looked at.
    pub isolation: Option<isolation::Status>,
}

/// How many network sandboxes there are.
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
    /// Its id, unique on the node and never reused; the last segment of its resource name.
    pub id: String,
    /// The service's name.
    pub service: Arc<str>,
    /// The version it runs.
    pub key: VersionKey,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Requests it holds now.
    pub in_flight: u32,
    /// When its container was asked for.
    pub created_at: SystemTime,
    /// Where the time of its start went, once it has been ready.
    pub cold_start: Option<ColdStart>,
    /// The engine's id of the container, 12 characters; empty until there is one.
    pub container: String,
}

/// Where an instance is in its life. `Gone` is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// The engine was asked for a container.
    Creating,
    /// The container was asked to start.
    Starting,
    /// It runs and is being probed.
    Probing,
    /// It takes requests.
    Ready,
    /// It is being frozen.
    Pausing,
    /// It is frozen.
    Paused,
    /// It is being thawed.
    Resuming,
    /// It takes no new requests and finishes those it has.
    Draining,
    /// It is being removed.
    Stopping,
    /// It could not start, or ended by itself.
    Failed,
}

/// What a node knows of one version it has run or tried to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionReport {
    /// The version.
    pub key: VersionKey,
    /// Its uid, never reused.
    pub version_uid: Arc<str>,
    /// The digest a registry gave for its image, if one did.
    pub image_digest: Option<String>,
    /// The last start that failed, kept until one succeeds.
    pub last_failure: Option<StartFailure>,
    /// Starts failed in a row.
    pub failures: u32,
    /// No start is tried before this time.
    pub backoff_until: Option<SystemTime>,
    /// The last start that succeeded.
    pub last_cold_start: Option<ColdStart>,
    /// What is being pulled, while it is; for a person.
    pub pull_progress: Option<String>,
    /// What came of the last order to verify it.
    pub verify: Option<VerifyOutcome>,
}

/// Where the time of one start went. A phase that did not happen is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdStart {
    /// Pulling the image, which was not there.
    pub pull: Option<Duration>,
    /// Waiting for the node's limit on starts at once.
    pub queue: Option<Duration>,
    /// The engine's answer to create.
    pub create: Option<Duration>,
    /// The engine's answer to start; the instance's own answer, if that came first.
    pub start: Option<Duration>,
    /// From then to the first probe that succeeded.
    pub ready: Option<Duration>,
    /// From the decision to start until ready.
    pub total: Duration,
    /// When it became ready.
    pub at: SystemTime,
}

/// Why a start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// What kind of failure it was.
    pub reason: FailureReason,
    /// For a person: what happened and what to do.
    pub message: String,
    /// The container's exit code, if it ended.
    pub exit_code: Option<i32>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
    /// Its last lines of output, oldest first; at most 20 are sent.
    pub log_tail: Vec<String>,
    /// When it failed.
    pub at: SystemTime,
    /// The signal that ended it, as its exit code tells.
    pub signal: Option<String>,
    /// What the last probe found, in words.
    pub last_probe: Option<String>,
    /// What the engine said, in its own words.
    pub engine_error: Option<String>,
}

/// The kinds of failed starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The image is not on the node and cannot be pulled.
    Image,
    /// The engine refused to create or start the container.
    Engine,
    /// The container ended before it was ready.
    Exited,
    /// The container ran but did not become ready in time.
    NotReady,
}

/// What has come of an order to verify a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// The order's id.
    pub id: String,
    /// How far it got.
    pub result: VerifyResult,
}

/// How far a verification got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyResult {
    /// An instance is being started.
    Pending,
    /// An instance became ready.
    Verified(ColdStart),
    /// It did not.
    Failed(StartFailure),
}
