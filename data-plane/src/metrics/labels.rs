//! Labels of metrics. Paths and hosts of requests are never labels: clients choose them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    /// `None`: no service has the host.
    pub(super) service: Option<Arc<str>>,
    /// `None`: no version was chosen.
    pub(super) version: Option<u32>,
    pub(super) http_response_status_code: u16,
}

/// As in [`RequestLabels`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RejectLabels {
    pub(super) reason: &'static str,
    pub(super) service: Option<Arc<str>>,
    pub(super) version: Option<u32>,
}

/// As in [`RequestLabels`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BytesLabels {
    pub(super) service: Option<Arc<str>>,
    pub(super) version: Option<u32>,
}

/// The build of the node.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct VersionLabels {
    pub(super) service: Arc<str>,
    pub(super) version: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PhaseLabels {
    pub(super) service: Arc<str>,
    pub(super) version: u32,
    pub(super) phase: &'static str,
    /// `ready`, or why the start failed.
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PauseLabels {
    pub(super) service: Arc<str>,
    pub(super) version: u32,
    pub(super) call: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) service: Arc<str>,
    pub(super) version: u32,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SandboxLabels {
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub(super) service: Arc<str>,
    pub(super) version: u32,
    pub(super) state: String,
}
