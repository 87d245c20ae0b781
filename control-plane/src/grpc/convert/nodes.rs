//! Reads reports of data planes and writes nodes and instances.

use super::feed::read_id;
pub(crate) use super::feed::read_identity;
use super::resources::{cold_start, start_failure};
use super::{read_duration, read_timestamp, timestamp};
use crate::domain::{
    ColdStart, ImageDigest, NodeHealth, NodeName, Service, ServiceState, StartFailure,
    StartFailureReason, StartTrouble, Timestamp, Uid, VerificationState, Version, VersionNumber,
    Violations, name,
};
use crate::feed::Cursor;
use crate::nodes::RESTORED;
use crate::nodes::registry::NodeEntry;
use crate::nodes::report::{
    InstanceReport, InstanceState, IsolationReport, IsolationState, NodeIdentity, NodeReport,
    VerifyOutcome, VersionReport,
};
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::{BTreeSet, HashMap};

/// A node's identity, its boot id and its report.
pub(crate) fn read_report(
    request: pb::ReportNodeStatusRequest,
    violations: &mut Violations,
) -> Option<(NodeIdentity, String, NodeReport)> {
    let encoded = request.encode_to_vec().into();
    let identity = read_identity("node", request.node, violations);
    let boot_id = read_id("boot_id", request.boot_id, violations);
    let mut instances: Vec<InstanceReport> = Vec::with_capacity(request.instances.len());
    let own = identity.as_ref().map(|identity| &identity.name);
    let mut seen = BTreeSet::new();
    for (at, instance) in request.instances.into_iter().enumerate() {
        let field = format!("instances[{at}]");
        let Some(read) = read_instance(&field, own, instance, violations) else {
            continue;
        };
        if !seen.insert(read.id.clone()) {
            violations.push(format!("{field}.name"), "is given twice: report it once");
        }
        instances.push(read);
    }
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    let mut versions = Vec::with_capacity(request.versions.len());
    let mut seen = BTreeSet::new();
    for (at, version) in request.versions.into_iter().enumerate() {
        let field = format!("versions[{at}]");
        let Some(read) = read_version(&field, version, violations) else {
            continue;
        };
        if !seen.insert(read.version_uid.clone()) {
            violations.push(
                format!("{field}.version_uid"),
                "is given twice: report it once",
            );
        }
        versions.push(read);
    }
    let report = NodeReport {
        engine: request.engine,
        warnings: request.warnings,
        instances,
        versions,
        runtime: request.runtime,
        isolation: request.isolation.map(read_isolation),
        sandboxes: request.sandboxes,
        allowed_capabilities: request.allowed_capabilities,
        allowed_egress: request.allowed_egress,
        drained: request.drained,
        encoded,
    };
    violations
        .is_empty()
        .then_some((identity?, boot_id?, report))
}

/// A report accepted by another control plane. `None` if it is invalid.
pub(crate) fn decode_report(encoded: &[u8]) -> Option<NodeReport> {
    let request = pb::ReportNodeStatusRequest::decode(encoded).ok()?;
    read_report(request, &mut Violations::new()).map(|(_, _, report)| report)
}

fn read_instance(
    field: &str,
    own: Option<&NodeName>,
    instance: pb::Instance,
    violations: &mut Violations,
) -> Option<InstanceReport> {
    let id = instance
        .name
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let field = format!("{field}.name");
    let id = read_id(&field, id, violations)?;
    if own.is_some_and(|own| name::instance(own, &id) != instance.name) {
        violations.push(
            field,
            "is no instance of this node: name it `nodes/{node}/instances/{instance}` with the node's own name",
        );
        return None;
    }
    Some(InstanceReport {
        id,
        service: instance.service,
        service_uid: instance.service_uid,
        version: instance.version,
        state: read_state(instance.state),
        in_flight: instance.in_flight,
        create_time: read_timestamp(instance.create_time),
        cold_start: instance.cold_start.map(read_cold_start),
        container: instance.container,
    })
}

fn read_version(
    field: &str,
    version: pb::VersionReport,
    violations: &mut Violations,
) -> Option<VersionReport> {
    let service_uid = violations.take(
        format!("{field}.service_uid"),
        Uid::parse(version.service_uid),
    );
    let number = violations.take(
        format!("{field}.number"),
        VersionNumber::new(version.number),
    );
    let version_uid = violations.take(
        format!("{field}.version_uid"),
        Uid::parse(version.version_uid),
    );
    let image_digest = if version.image_digest.is_empty() {
        Some(None)
    } else {
        let digest = ImageDigest::parse(version.image_digest).map(Some);
        violations.take(format!("{field}.image_digest"), digest)
    };
    let verify = match version.verify {
        None => Some(None),
        Some(outcome) => read_outcome(&format!("{field}.verify"), outcome, violations).map(Some),
    };
    Some(VersionReport {
        version_uid: version_uid?,
        service_uid: service_uid?,
        number: number?,
        image_digest: image_digest?,
        // Only shown, so an id of another form is no reason to refuse the report.
        image_id: ImageDigest::parse(version.image_id).ok(),
        image_generation: version.image_generation,
        last_failure: version.last_failure.map(read_failure),
        failures: version.failures,
        backoff_until: read_timestamp(version.backoff_until),
        last_cold_start: version.last_cold_start.map(read_cold_start),
        pull_progress: version.pull_progress,
        port: u16::try_from(version.port).unwrap_or(0),
        verify: verify?,
    })
}

fn read_outcome(
    field: &str,
    outcome: pb::VerifyOutcome,
    violations: &mut Violations,
) -> Option<VerifyOutcome> {
    use pb::verification::State;
    let id = read_id(&format!("{field}.id"), outcome.id, violations);
    let state = match State::try_from(outcome.state) {
        Ok(State::Pending) => VerificationState::Pending,
        Ok(State::Verified) => VerificationState::Verified,
        Ok(State::Failed) => VerificationState::Failed,
        Ok(State::Unverified) => VerificationState::Unverified,
        Ok(State::Unspecified) | Err(_) => {
            violations.push(
                format!("{field}.state"),
                "give STATE_PENDING, STATE_VERIFIED, STATE_FAILED or STATE_UNVERIFIED",
            );
            return None;
        }
    };
    Some(VerifyOutcome {
        id: id?,
        state,
        failure: outcome.failure.map(read_failure),
        cold_start: outcome.cold_start.map(read_cold_start),
    })
}

fn read_failure(failure: pb::StartFailure) -> StartFailure {
    use pb::start_failure::Reason;
    StartFailure {
        reason: match failure.reason() {
            Reason::Unspecified => StartFailureReason::Unspecified,
            Reason::Image => StartFailureReason::Image,
            Reason::Engine => StartFailureReason::Engine,
            Reason::Exited => StartFailureReason::Exited,
            Reason::NotReady => StartFailureReason::NotReady,
            Reason::MalformedResponse => StartFailureReason::MalformedResponse,
            Reason::NotAllowed => StartFailureReason::NotAllowed,
        },
        message: failure.message,
        exit_code: failure.exit_code,
        oom_killed: failure.oom_killed,
        log_tail: failure.log_tail,
        time: read_timestamp(failure.time),
        signal: failure.signal,
        last_probe: failure.last_probe,
        engine_error: failure.engine_error,
    }
    .clipped()
}

fn read_cold_start(start: pb::ColdStart) -> ColdStart {
    // A phase measured as negative, after the node's clock was set back, counts as absent.
    let phase = |duration| read_duration("", duration, &mut Violations::new());
    ColdStart {
        pull: phase(start.pull),
        queue: phase(start.queue),
        create: phase(start.create),
        start: phase(start.start),
        ready: phase(start.ready),
        total: phase(start.total),
        time: read_timestamp(start.time),
    }
}

fn read_isolation(isolation: pb::Isolation) -> IsolationReport {
    use pb::isolation::State;
    IsolationReport {
        state: match isolation.state() {
            State::Unspecified => IsolationState::Unspecified,
            State::Enforced => IsolationState::Enforced,
            State::Partial => IsolationState::Partial,
            State::None => IsolationState::None,
        },
        reason: isolation.reason,
    }
}

fn isolation(isolation: &IsolationReport) -> pb::Isolation {
    use pb::isolation::State;
    let state = match isolation.state {
        IsolationState::Unspecified => State::Unspecified,
        IsolationState::Enforced => State::Enforced,
        IsolationState::Partial => State::Partial,
        IsolationState::None => State::None,
    };
    pb::Isolation {
        state: state.into(),
        reason: isolation.reason.clone(),
    }
}

fn read_state(state: i32) -> InstanceState {
    use pb::instance::State;
    match State::try_from(state).unwrap_or(State::Unspecified) {
        State::Unspecified => InstanceState::Unspecified,
        State::Creating => InstanceState::Creating,
        State::Starting => InstanceState::Starting,
        State::Probing => InstanceState::Probing,
        State::Ready => InstanceState::Ready,
        State::Pausing => InstanceState::Pausing,
        State::Paused => InstanceState::Paused,
        State::Resuming => InstanceState::Resuming,
        State::Draining => InstanceState::Draining,
        State::Stopping => InstanceState::Stopping,
        State::Failed => InstanceState::Failed,
    }
}

fn state(state: InstanceState) -> pb::instance::State {
    use pb::instance::State;
    match state {
        InstanceState::Unspecified => State::Unspecified,
        InstanceState::Creating => State::Creating,
        InstanceState::Starting => State::Starting,
        InstanceState::Probing => State::Probing,
        InstanceState::Ready => State::Ready,
        InstanceState::Pausing => State::Pausing,
        InstanceState::Paused => State::Paused,
        InstanceState::Resuming => State::Resuming,
        InstanceState::Draining => State::Draining,
        InstanceState::Stopping => State::Stopping,
        InstanceState::Failed => State::Failed,
    }
}

/// A node; `head` is the newest cursor of the feed. A table of another epoch counts as none.
pub(crate) fn node(node: &NodeEntry, head: &Cursor) -> pb::Node {
    let current = node.applied_revision(&head.epoch).unwrap_or(0);
    let applied = node.applied.as_ref().map_or(0, |cursor| cursor.revision);
    let quarantined = node.quarantined.iter().map(|route| pb::QuarantinedRoute {
        service_uid: route.service_uid.clone(),
        service: route.service.clone(),
        reason: route.reason.clone(),
    });
    let unreported = NodeReport::default();
    let (report_time, report) = match &node.report {
        Some((time, report)) => (Some(timestamp(*time)), report),
        None => (None, &unreported),
    };
    pb::Node {
        name: name::node(&node.identity.name),
        id: node.identity.id.clone(),
        state: if node.is_connected() {
            pb::node::State::Connected
        } else {
            pb::node::State::Stale
        }
        .into(),
        applied_revision: applied,
        lag: head.revision.saturating_sub(current).max(0),
        quarantined: quarantined.collect(),
        nack_reason: node.rejection.clone().unwrap_or_default(),
        connect_time: node.connect_time.map(timestamp),
        report_time,
        version: node.identity.version.clone(),
        engine: report.engine.clone(),
        warnings: node
            .ahead
            .iter()
            .map(|_| RESTORED.to_owned())
            .chain(report.warnings.iter().cloned())
            .collect(),
        instances: u32::try_from(report.instances.len()).unwrap_or(u32::MAX),
        runtime: report.runtime.clone(),
        isolation: report.isolation.as_ref().map(isolation),
        sandboxes: report.sandboxes,
        allowed_capabilities: report.allowed_capabilities.clone(),
        allowed_egress: report.allowed_egress.clone(),
        drained: report.drained,
        certificate_expire_time: node.certificate_expire_time.map(timestamp),
        disconnect_time: node.disconnected_since().map(timestamp),
    }
}

pub(crate) fn instance(node: &NodeName, instance: &InstanceReport) -> pb::Instance {
    pb::Instance {
        name: name::instance(node, &instance.id),
        service: instance.service.clone(),
        version: instance.version,
        service_uid: instance.service_uid.clone(),
        state: state(instance.state).into(),
        in_flight: instance.in_flight,
        create_time: instance.create_time.map(timestamp),
        cold_start: instance.cold_start.as_ref().map(cold_start),
        container: instance.container.clone(),
    }
}

/// The latest reports of the nodes about a version.
pub(crate) fn version_status<'a>(
    version: &Version,
    nodes: impl IntoIterator<Item = &'a NodeEntry>,
) -> pb::VersionStatus {
    let reports = nodes.into_iter().filter_map(|node| {
        let report = node
            .versions()
            .find(|report| report.version_uid == version.uid)?;
        Some(node_version_status(&node.identity.name, report))
    });
    pb::VersionStatus {
        nodes: reports.collect(),
    }
}

fn node_version_status(node: &NodeName, report: &VersionReport) -> pb::NodeVersionStatus {
    pb::NodeVersionStatus {
        node: name::node(node),
        last_failure: report.last_failure.as_ref().map(start_failure),
        failures: report.failures,
        backoff_until: report.backoff_until.map(timestamp),
        last_cold_start: report.last_cold_start.as_ref().map(cold_start),
        pull_progress: report.pull_progress.clone(),
        image_id: report
            .image_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        port: report.port.into(),
    }
}

/// The health of the connected nodes, as far as the versions of each service are concerned; by the
/// uid of the service. One pass over all reports, for any number of services.
pub(crate) struct ServiceHealth<'a> {
    /// Without troubles.
    nodes: Vec<NodeHealth<'a>>,
    /// The node's index in `nodes`, and the trouble.
    troubles: HashMap<&'a Uid, Vec<(usize, StartTrouble<'a>)>>,
}

impl<'a> ServiceHealth<'a> {
    pub(crate) fn new(nodes: impl IntoIterator<Item = &'a NodeEntry>, now: Timestamp) -> Self {
        let mut health = Self {
            nodes: Vec::new(),
            troubles: HashMap::new(),
        };
        for node in nodes.into_iter().filter(|node| node.is_connected()) {
            let at = health.nodes.len();
            health.nodes.push(NodeHealth {
                node: &node.identity.name,
                engine_responds: node.engine_responds(),
                troubles: Vec::new(),
            });
            for report in node.versions().filter(|report| report.is_in_trouble(now)) {
                let trouble = StartTrouble {
                    version: report.number,
                    failure: report.last_failure.as_ref(),
                    failures: report.failures,
                };
                let known = health.troubles.entry(&report.service_uid).or_default();
                known.push((at, trouble));
            }
        }
        health
    }

    /// The state of a service.
    pub(crate) fn state(&self, service: &Service) -> ServiceState {
        let Some(troubles) = self.troubles.get(&service.uid) else {
            return ServiceState::of(&service.in_traffic, &self.nodes);
        };
        let mut nodes = self.nodes.clone();
        for &(at, trouble) in troubles {
            if let Some(node) = nodes.get_mut(at) {
                node.troubles.push(trouble);
            }
        }
        ServiceState::of(&service.in_traffic, &nodes)
    }
}
