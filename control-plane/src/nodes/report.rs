//! Reports of data planes, kept in memory only: nodes repeat them every 10 s, also to a restarted
//! control plane, and a report never causes a write by itself.

use bytes::Bytes;

use crate::domain::{
    ColdStart, ImageDigest, NodeName, StartFailure, StartFailureReason, Timestamp, Uid,
    VerificationState, VersionNumber,
};

/// The identity of a data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeIdentity {
    /// Random id stored in the node's cache folder.
    pub(crate) id: String,
    /// Unique label for people.
    pub(crate) name: NodeName,
    /// Program version.
    pub(crate) version: String,
}

/// A route that a node rejected; it keeps the previous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantinedRoute {
    /// Uid of the service.
    pub(crate) service_uid: String,
    /// Id of the service. Empty if the node holds no earlier route of it.
    pub(crate) service: String,
    /// The reason why the node rejected the route.
    pub(crate) reason: String,
}

/// The complete status of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeReport {
    /// Engine and version. Empty while the engine does not respond.
    pub(crate) engine: String,
    /// Human-readable conditions that need action.
    pub(crate) warnings: Vec<String>,
    /// Instances, sorted by id.
    pub(crate) instances: Vec<InstanceReport>,
    /// Versions the node has run or tried to run.
    pub(crate) versions: Vec<VersionReport>,
    /// OCI runtime of the containers. Empty while unknown.
    pub(crate) runtime: String,
    /// Network isolation of the containers. `None`: not reported yet.
    pub(crate) isolation: Option<IsolationReport>,
    /// Number of idle network sandboxes.
    pub(crate) sandboxes: u32,
    /// Capabilities that versions may add.
    pub(crate) allowed_capabilities: Vec<String>,
    /// Destinations on the node that versions may reach.
    pub(crate) allowed_egress: Vec<String>,
    /// Whether it is out of service (DrainNode).
    pub(crate) drained: bool,
    /// The encoded request, shared with other control planes.
    pub(crate) encoded: Bytes,
}

/// Network isolation of a node's containers.
#[derive(Debug, Clone)]
pub(crate) struct IsolationReport {
    pub(crate) state: IsolationState,
    /// Human-readable gap and remedy. Empty when enforced.
    pub(crate) reason: String,
}

/// The extent of network isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsolationState {
    Unspecified,
    Enforced,
    Partial,
    None,
}

/// One instance on a node.
#[derive(Debug, Clone)]
pub(crate) struct InstanceReport {
    /// Last segment of the resource name.
    pub(crate) id: String,
    /// `services/{service}`
    pub(crate) service: String,
    /// Uid of the service.
    pub(crate) service_uid: String,
    /// Number of the version.
    pub(crate) version: i32,
    pub(crate) state: InstanceState,
    /// Number of requests in progress.
    pub(crate) in_flight: u32,
    pub(crate) create_time: Option<Timestamp>,
    /// Phases of the start. `None` until it is ready.
    pub(crate) cold_start: Option<ColdStart>,
    /// Container id of the engine.
    pub(crate) container: String,
}

/// The states of the data plane's instance state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceState {
    Unspecified,
    Creating,
    Starting,
    Probing,
    Ready,
    Pausing,
    Paused,
    Resuming,
    Draining,
    Stopping,
    Failed,
}

/// A node's knowledge of one version.
#[derive(Debug, Clone)]
pub(crate) struct VersionReport {
    /// Uid of the version, unique among all services.
    pub(crate) version_uid: Uid,
    /// Uid of its service.
    pub(crate) service_uid: Uid,
    /// Number of the version.
    pub(crate) number: VersionNumber,
    /// Digest the node resolved. `None`: no registry gave one.
    pub(crate) image_digest: Option<ImageDigest>,
    /// Image id the node has pinned. `None`: none.
    pub(crate) image_id: Option<ImageDigest>,
    /// Number of resets of the image that digest and id belong to.
    pub(crate) image_generation: u32,
    /// Last failed start. `None` once a start succeeds.
    pub(crate) last_failure: Option<StartFailure>,
    /// Number of consecutive failed starts.
    pub(crate) failures: u32,
    /// End of the back-off. `None`: no back-off.
    pub(crate) backoff_until: Option<Timestamp>,
    /// Last successful start. `None`: none yet.
    pub(crate) last_cold_start: Option<ColdStart>,
    /// Progress of a running image pull. Empty: no pull is running.
    pub(crate) pull_progress: String,
    /// Port of the containers; 0: not known yet.
    pub(crate) port: u16,
    /// Outcome of the latest verification order. `None`: none received.
    pub(crate) verify: Option<VerifyOutcome>,
}

/// The outcome of a verification order on a node.
#[derive(Debug, Clone)]
pub(crate) struct VerifyOutcome {
    /// Id of the verification.
    pub(crate) id: String,
    pub(crate) state: VerificationState,
    /// Cause of the failure, or the node's trouble. `None` if it gave none, or verified.
    pub(crate) failure: Option<StartFailure>,
    /// Phases of the start. `None` unless verified.
    pub(crate) cold_start: Option<ColdStart>,
}

impl VersionReport {
    /// The digest that the node resolved, if it has also pulled or started the image. Until then a
    /// digest says nothing about what the version runs.
    pub(crate) fn proven_digest(&self) -> Option<&ImageDigest> {
        let verified = self
            .verify
            .as_ref()
            .is_some_and(|outcome| outcome.state == VerificationState::Verified);
        self.image_digest
            .as_ref()
            .filter(|_| verified || self.last_cold_start.is_some())
    }

    /// Whether the last start failed, an instance ended while it served, or the node waits before the
    /// next start. A version with malformed responses serves.
    pub(crate) fn is_in_trouble(&self, now: Timestamp) -> bool {
        let failed = self.last_failure.as_ref();
        failed.is_some_and(|failure| failure.reason != StartFailureReason::MalformedResponse)
            || self.backoff_until.is_some_and(|until| until > now)
    }
}
