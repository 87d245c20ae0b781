//! What a data plane says of itself. Kept in memory only: a control plane that restarts hears it
//! all again within 10 s, and a report never costs a write.

use bytes::Bytes;

use crate::domain::{
    ColdStart, ImageDigest, NodeName, StartFailure, Timestamp, Uid, VerificationState,
};

/// Who a data plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The random id kept in its cache folder.
    pub(crate) id: String,
    /// Its label for people.
    pub(crate) name: NodeName,
    /// Its program version.
    pub(crate) version: String,
}

/// A route that a node keeps at its last good value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantined {
    /// The service's uid.
    pub(crate) service_uid: String,
    /// The service's id, as far as the node knows it.
    pub(crate) service: String,
    /// Why it refused the new value.
    pub(crate) reason: String,
}

/// A node's whole state at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// The engine and its version; empty while it does not answer.
    pub(crate) engine: String,
    /// Conditions to act on, for a person.
    pub(crate) warnings: Vec<String>,
    /// Its containers, in the order of their ids.
    pub(crate) instances: Vec<Instance>,
    /// The versions it has run or tried to run.
    pub(crate) versions: Vec<VersionReport>,
    /// The engine's runtime that containers run under; empty if it has not said.
    pub(crate) runtime: String,
    /// How far its containers are kept apart, once it has said.
    pub(crate) isolation: Option<Isolation>,
    /// Network sandboxes ready for a new instance.
    pub(crate) sandboxes: u32,
    /// The whole of it as it came, for other control planes.
    pub(crate) encoded: Bytes,
}

/// How far the containers of a node are kept apart.
#[derive(Debug, Clone)]
pub(crate) struct Isolation {
    /// How far.
    pub(crate) state: IsolationState,
    /// Why not all of it, for a person.
    pub(crate) reason: String,
}

/// As the data plane judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsolationState {
    Unspecified,
    Enforced,
    Partial,
    None,
}

/// One container on a node.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// The last segment of its name.
    pub(crate) id: String,
    /// `services/{service}`, as the node knows it.
    pub(crate) service: String,
    /// The service's uid.
    pub(crate) service_uid: String,
    /// The version's number.
    pub(crate) version: i32,
    /// Where it is in its life.
    pub(crate) state: InstanceState,
    /// Requests in it now.
    pub(crate) in_flight: u32,
    /// When it was begun.
    pub(crate) create_time: Option<Timestamp>,
    /// Where the time of its start went, once it is ready.
    pub(crate) cold_start: Option<ColdStart>,
    /// The engine's id of the container.
    pub(crate) container: String,
}

/// Where an instance is in its life, as the data plane's state machine names it.
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

/// What a node knows of one version.
#[derive(Debug, Clone)]
pub(crate) struct VersionReport {
    /// Which; a uid names a version of all services.
    pub(crate) version_uid: Uid,
    /// The digest it resolved, if a registry gave one.
    pub(crate) image_digest: Option<ImageDigest>,
    /// The last start that failed, until one succeeds.
    pub(crate) last_failure: Option<StartFailure>,
    /// Starts failed in a row.
    pub(crate) failures: u32,
    /// No start is tried before this time.
    pub(crate) backoff_until: Option<Timestamp>,
    /// The last start that succeeded.
    pub(crate) last_cold_start: Option<ColdStart>,
    /// What is being pulled, while it is.
    pub(crate) pull_progress: String,
    /// The outcome of a verify order.
    pub(crate) verify: Option<VerifyOutcome>,
}

/// How far a node is with a verify order.
#[derive(Debug, Clone)]
pub(crate) struct VerifyOutcome {
    /// The order's id.
    pub(crate) id: String,
    /// Pending, verified or failed.
    pub(crate) state: VerificationState,
    /// Why it failed.
    pub(crate) failure: Option<StartFailure>,
    /// How the start went.
    pub(crate) cold_start: Option<ColdStart>,
}
