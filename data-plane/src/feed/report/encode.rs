//! Encodes a [`NodeReport`] as `cless.v1.ReportNodeStatusRequest`. Total and bounded: no report is
//! refused for its size.

use super::wire::NodeInfo;
use crate::isolation::{EnforcementState, Status};
use crate::report as domain;
use cless_proto::{bounds, v1 as pb};
use domain::{FailureReason, InstanceState, NodeReport, VerifyResult};
use prost::Message as _;
use std::time::{Duration, SystemTime};

/// Lines of output kept per failed start.
const LOG_LINES: usize = 20;
/// Bytes kept per line.
const LOG_LINE: usize = 1000;
/// Bytes kept per other text.
const TEXT: usize = 4000;
/// gRPC servers accept 4 MiB by default; above this size, output is omitted.
const MAX_REQUEST: usize = 3 << 20;

pub(crate) fn request(node: &NodeInfo, report: NodeReport) -> pb::ReportNodeStatusRequest {
    let NodeReport {
        engine,
        warnings,
        sandboxes,
        instances,
        versions,
        runtime,
        isolation: isolated,
        allowed_capabilities,
        allowed_egress,
        drained,
    } = report;
    let mut request = pb::ReportNodeStatusRequest {
        node: Some(node.identity()),
        boot_id: node.boot_id.clone(),
        engine: text(&engine),
        warnings: warnings.iter().map(|warning| text(warning)).collect(),
        instances: instances
            .into_iter()
            .map(|one| instance(&node.name, one))
            .collect(),
        versions: versions.into_iter().map(version).collect(),
        runtime: text(&runtime),
        isolation: isolated.map(isolation),
        sandboxes: u32::try_from(sandboxes.idle).unwrap_or(u32::MAX),
        allowed_capabilities,
        allowed_egress,
        drained,
    };
    let mut left_out = keep_items("instances", &mut request.instances);
    left_out += keep_items("versions", &mut request.versions);
    left_out += keep_items("warnings", &mut request.warnings);
    left_out += keep_items("allowed_capabilities", &mut request.allowed_capabilities);
    left_out += keep_items("allowed_egress", &mut request.allowed_egress);
    if left_out > 0 {
        // In place of the last warning, where there is no room for one more.
        request.warnings.truncate(items("warnings") - 2);
        request.warnings.push(format!(
            "the report is too large: {left_out} of its items are omitted"
        ));
    }
    if request.encoded_len() > MAX_REQUEST {
        for version in &mut request.versions {
            let verify = version
                .verify
                .as_mut()
                .and_then(|verify| verify.failure.as_mut());
            for failure in version.last_failure.as_mut().into_iter().chain(verify) {
                failure.log_tail.clear();
            }
        }
        request.warnings.truncate(items("warnings") - 1);
        request
            .warnings
            .push("the report is too large: the output of failed starts is omitted".into());
    }
    request
}

/// Number of items that the control plane takes in a field of the report.
fn items(field: &str) -> usize {
    bounds::max_items(&format!("cless.v1.ReportNodeStatusRequest.{field}"))
}

/// Drops the items beyond those that the control plane takes; returns how many.
fn keep_items<T>(field: &str, list: &mut Vec<T>) -> usize {
    let over = list.len().saturating_sub(items(field));
    list.truncate(items(field));
    over
}

fn text(text: &str) -> String {
    bounds::sendable(text, TEXT)
}

fn isolation(status: Status) -> pb::Isolation {
    use pb::isolation::State as WireState;
    let state = match status.state {
        EnforcementState::Enforced => WireState::Enforced,
        EnforcementState::Partial => WireState::Partial,
        EnforcementState::None => WireState::None,
    };
    pb::Isolation {
        state: state.into(),
        reason: text(&status.reason),
    }
}

fn instance(node: &str, instance: domain::InstanceReport) -> pb::Instance {
    pb::Instance {
        name: format!("nodes/{node}/instances/{}", instance.id),
        service: format!("services/{}", instance.service),
        version: number(instance.key.number),
        service_uid: instance.key.service_uid.as_ref().to_owned(),
        state: state(instance.state).into(),
        in_flight: instance.in_flight,
        create_time: Some(time(instance.created_at)),
        cold_start: instance.cold_start.map(cold_start),
        container: instance.container,
    }
}

fn state(state: InstanceState) -> pb::instance::State {
    use pb::instance::State;
    match state {
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

fn version(version: domain::VersionReport) -> pb::VersionReport {
    pb::VersionReport {
        service_uid: version.key.service_uid.as_ref().to_owned(),
        number: number(version.key.number),
        version_uid: version.version_uid.as_ref().to_owned(),
        image_digest: version.image_digest.unwrap_or_default(),
        last_failure: version.last_failure.map(failure),
        failures: version.failures,
        backoff_until: version.backoff_until.map(time),
        last_cold_start: version.last_cold_start.map(cold_start),
        pull_progress: text(&version.pull_progress.unwrap_or_default()),
        verify: version.verify.map(verify),
        image_id: version.image_id.unwrap_or_default(),
        image_generation: version.image_generation,
        port: version.port.map_or(0, u32::from),
    }
}

fn verify(outcome: domain::VerifyOutcome) -> pb::VerifyOutcome {
    use pb::verification::State;
    let (state, failed, started) = match outcome.result {
        VerifyResult::Pending => (State::Pending, None, None),
        VerifyResult::Verified(started) => (State::Verified, None, Some(cold_start(started))),
        VerifyResult::Failed(failed) => (State::Failed, Some(failure(failed)), None),
        VerifyResult::Unverified(failed) => (State::Unverified, Some(failure(failed)), None),
    };
    pb::VerifyOutcome {
        id: outcome.id,
        state: state.into(),
        failure: failed,
        cold_start: started,
    }
}

pub(crate) fn failure(failure: domain::StartFailure) -> pb::StartFailure {
    use pb::start_failure::Reason;
    let reason = match failure.reason {
        FailureReason::Image => Reason::Image,
        FailureReason::Engine => Reason::Engine,
        FailureReason::Exited => Reason::Exited,
        FailureReason::NotReady => Reason::NotReady,
        FailureReason::MalformedResponse => Reason::MalformedResponse,
        FailureReason::NotAllowed => Reason::NotAllowed,
    };
    let skip = failure.log_tail.len().saturating_sub(LOG_LINES);
    let optional = |value: Option<String>| value.as_deref().map(text).unwrap_or_default();
    pb::StartFailure {
        reason: reason.into(),
        message: text(&failure.message),
        exit_code: failure.exit_code,
        oom_killed: failure.oom_killed,
        log_tail: failure
            .log_tail
            .iter()
            .skip(skip)
            .map(|line| bounds::sendable(line, LOG_LINE))
            .collect(),
        time: Some(time(failure.at)),
        signal: optional(failure.signal),
        last_probe: optional(failure.last_probe),
        engine_error: optional(failure.engine_error),
    }
}

fn cold_start(start: domain::ColdStart) -> pb::ColdStart {
    pb::ColdStart {
        pull: start.pull.and_then(duration),
        queue: start.queue.and_then(duration),
        create: start.create.and_then(duration),
        start: start.start.and_then(duration),
        ready: start.ready.and_then(duration),
        total: duration(start.total),
        time: Some(time(start.at)),
    }
}

/// Version numbers are decoded from a positive i32, so they fit.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(crate) fn time(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::VersionKey;

    fn node() -> NodeInfo {
        NodeInfo {
            id: "id".into(),
            name: "one".into(),
            boot_id: "boot".into(),
        }
    }

    fn key() -> VersionKey {
        VersionKey {
            service_uid: "u".into(),
            number: 3,
        }
    }

    fn started() -> domain::ColdStart {
        domain::ColdStart {
            pull: None,
            queue: None,
            create: Some(Duration::from_millis(12)),
            start: Some(Duration::from_millis(270)),
            ready: Some(Duration::from_millis(2)),
            total: Duration::from_millis(284),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn failed(lines: usize, width: usize) -> domain::StartFailure {
        domain::StartFailure {
            reason: FailureReason::Exited,
            message: "it exited".into(),
            exit_code: Some(1),
            oom_killed: false,
            log_tail: (0..lines).map(|line| format!("{line:0width$}")).collect(),
            at: SystemTime::UNIX_EPOCH,
            signal: Some("SIGKILL".into()),
            last_probe: None,
            engine_error: None,
        }
    }

    fn version_report(failure: domain::StartFailure) -> domain::VersionReport {
        domain::VersionReport {
            key: key(),
            version_uid: "v".into(),
            image_digest: None,
            image_id: None,
            image_generation: 0,
            last_failure: Some(failure.clone()),
            failures: 1,
            backoff_until: None,
            last_cold_start: Some(started()),
            pull_progress: None,
            verify: Some(domain::VerifyOutcome {
                id: "proof".into(),
                result: VerifyResult::Failed(failure),
            }),
            port: Some(8080),
        }
    }

    #[test]
    fn names_are_resource_names() {
        let report = NodeReport {
            engine: "docker 20.10".into(),
            instances: vec![domain::InstanceReport {
                id: "i1".into(),
                service: "hello".into(),
                key: key(),
                state: InstanceState::Ready,
                in_flight: 2,
                created_at: SystemTime::UNIX_EPOCH,
                cold_start: Some(started()),
                container: "0123456789ab".into(),
            }],
            ..NodeReport::default()
        };
        let request = request(&node(), report);
        assert_eq!(request.engine, "docker 20.10");
        let instance = &request.instances[0];
        assert_eq!(instance.name, "nodes/one/instances/i1");
        assert_eq!(instance.service, "services/hello");
        assert_eq!(
            (instance.version, instance.state()),
            (3, pb::instance::State::Ready)
        );
        let phases = instance.cold_start.as_ref().unwrap();
        assert_eq!(phases.pull, None);
        assert_eq!(phases.total.as_ref().unwrap().nanos, 284_000_000);
    }

    #[test]
    fn the_last_lines_are_kept_and_clipped() {
        let report = NodeReport {
            versions: vec![version_report(failed(30, 5000))],
            ..Default::default()
        };
        let request = request(&node(), report);
        let tail = &request.versions[0].last_failure.as_ref().unwrap().log_tail;
        assert_eq!((tail.len(), tail[0].len()), (20, 1000));
    }

    #[test]
    fn the_control_plane_takes_the_largest_report() {
        let mut failure = failed(30, 5000);
        failure.log_tail.push("a\0b".into());
        failure.engine_error = Some("\0ä".repeat(50_000));
        let instance = domain::InstanceReport {
            id: "i1".into(),
            service: "hello".into(),
            key: key(),
            state: InstanceState::Ready,
            in_flight: 0,
            created_at: SystemTime::UNIX_EPOCH,
            cold_start: None,
            container: String::new(),
        };
        let report = NodeReport {
            warnings: vec!["w".repeat(100_000); 500],
            instances: vec![instance; 10_500],
            versions: vec![version_report(failure); 3],
            allowed_capabilities: vec!["NET_RAW".into(); 100],
            allowed_egress: vec!["db:5432".into(); 2000],
            ..Default::default()
        };
        let request = request(&node(), report);
        let name = "cless.v1.ReportNodeStatusRequest";
        bounds::check(name, &request.encode_to_vec()).expect("within the bounds");
        let last = request.warnings.last().expect("a warning");
        assert!(last.contains("1936 of its items"), "{last}");
    }

    #[test]
    fn a_large_report_leaves_output_out() {
        let versions = (0..200).map(|_| version_report(failed(20, 1000))).collect();
        let request = request(
            &node(),
            NodeReport {
                versions,
                ..Default::default()
            },
        );
        assert!(request.encoded_len() < MAX_REQUEST);
        assert!(
            request
                .versions
                .iter()
                .all(|v| v.last_failure.as_ref().unwrap().exit_code == Some(1))
        );
        assert_eq!(request.warnings.len(), 1);
    }
}
