//! Writes resources into responses.

use super::{duration, settings::settings, timestamp};
use crate::domain::{
    ColdStart, ImageSource, NodeOutcome, ProbeTimings, Protocol, PullPolicy, Readiness, Require,
    ResolvedImage, Service, ServiceState, StartFailure, StartFailureReason, StopSignal, Traffic,
    TrafficRevision, TrafficSplit, Ulimit, User, Verification, VerificationState, Version,
    VersionSpec, name,
};
use cless_proto::v1 as pb;

pub(crate) fn service(service: &Service, state: ServiceState) -> pb::Service {
    pb::Service {
        name: name::service(&service.id),
        uid: service.uid.to_string(),
        default_host: service.default_host.to_string(),
        hosts: service.hosts.iter().map(ToString::to_string).collect(),
        settings: Some(settings(&service.settings)),
        labels: service.labels.as_map().clone(),
        etag: service.etag.clone(),
        create_time: Some(timestamp(service.create_time)),
        update_time: Some(timestamp(service.update_time)),
        revision: service.revision,
        state: service_state(&state).into(),
        state_message: match state {
            ServiceState::NoTraffic | ServiceState::Serving => String::new(),
            ServiceState::Degraded(message) => message,
        },
    }
}

pub(crate) fn service_state(state: &ServiceState) -> pb::service::State {
    match state {
        ServiceState::NoTraffic => pb::service::State::NoTraffic,
        ServiceState::Serving => pb::service::State::Serving,
        ServiceState::Degraded(_) => pb::service::State::Degraded,
    }
}

/// A version with the latest reports of nodes about it.
pub(crate) fn version(version: &Version, status: Option<pb::VersionStatus>) -> pb::Version {
    pb::Version {
        name: name::version(&version.service, version.number),
        uid: version.uid.to_string(),
        number: version.number.get(),
        spec: Some(spec(&version.spec)),
        image_digest: version
            .image_digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        etag: version.etag.clone(),
        create_time: Some(timestamp(version.create_time)),
        verification: version.verification.as_ref().map(verification),
        status,
        percent: version.percent.get().into(),
        tags: version.tags.iter().map(ToString::to_string).collect(),
        resolved_image: version.resolved_image.as_ref().map(resolved_image),
        carried_traffic: version.carried_traffic,
    }
}

fn resolved_image(image: &ResolvedImage) -> pb::ResolvedImage {
    use pb::resolved_image::Source;
    pb::ResolvedImage {
        source: match image.source {
            ImageSource::Registry => Source::Registry,
            ImageSource::LocalCopy => Source::LocalCopy,
            ImageSource::LocalImage => Source::LocalImage,
        }
        .into(),
        id: image
            .id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        create_time: image.create_time.map(timestamp),
        resolve_time: Some(timestamp(image.resolve_time)),
        node: name::node(&image.node),
        warning: image.warning.clone(),
    }
}

pub(super) fn spec(spec: &VersionSpec) -> pb::VersionSpec {
    pb::VersionSpec {
        image: spec.image().to_string(),
        port: spec.port().map_or(0, u32::from),
        env: spec.env().clone(),
        command: spec.command().to_vec(),
        args: spec.args().to_vec(),
        cpu_millis: spec.cpu_millis(),
        memory_bytes: spec.memory_bytes(),
        readiness: Some(readiness(spec.readiness(), spec.probe())),
        pull_policy: match spec.pull_policy() {
            PullPolicy::Missing => pb::version_spec::PullPolicy::Missing,
            PullPolicy::Always => pb::version_spec::PullPolicy::Always,
            PullPolicy::Never => pb::version_spec::PullPolicy::Never,
        }
        .into(),
        protocol: match spec.protocol() {
            Protocol::Auto => pb::version_spec::Protocol::Auto,
            Protocol::Http1 => pb::version_spec::Protocol::Http1,
            Protocol::H2c => pb::version_spec::Protocol::H2c,
        }
        .into(),
        pids_limit: spec.pids_limit(),
        read_only_root: spec.read_only_root(),
        tmpfs: spec.tmpfs().as_map().clone(),
        user: spec.user().map_or("", User::as_str).to_owned(),
        stop_signal: spec.stop_signal().map_or("", StopSignal::as_str).to_owned(),
        stop_grace: Some(duration(spec.stop_grace())),
        no_init: spec.no_init(),
        cap_add: spec.cap_add().iter().map(str::to_owned).collect(),
        tmpfs_exec: spec.tmpfs_exec().iter().cloned().collect(),
        shm_bytes: spec.shm_bytes(),
        ulimits: spec.ulimits().as_slice().iter().map(ulimit).collect(),
        extra_hosts: spec.extra_hosts().as_map().clone(),
        dns: spec
            .dns()
            .as_slice()
            .iter()
            .map(ToString::to_string)
            .collect(),
        egress: spec.egress().iter().map(str::to_owned).collect(),
    }
}

fn ulimit(limit: &Ulimit) -> pb::Ulimit {
    pb::Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

fn readiness(readiness: &Readiness, timings: &ProbeTimings) -> pb::ReadinessProbe {
    use pb::readiness_probe::Kind;
    let kind = match readiness {
        Readiness::Tcp => Kind::Tcp(pb::TcpProbe {}),
        Readiness::Http {
            path,
            status_min,
            status_max,
            host,
        } => Kind::Http(pb::HttpProbe {
            path: path.clone(),
            status_min: (*status_min).into(),
            status_max: (*status_max).into(),
            host: host.clone(),
        }),
        Readiness::Grpc { service } => Kind::Grpc(pb::GrpcProbe {
            service: service.clone(),
        }),
        Readiness::Healthcheck => Kind::Healthcheck(pb::HealthcheckProbe {}),
    };
    pb::ReadinessProbe {
        kind: Some(kind),
        period: Some(duration(timings.period())),
        timeout: Some(duration(timings.timeout())),
        initial_delay: Some(duration(timings.initial_delay())),
    }
}

fn verification(verification: &Verification) -> pb::Verification {
    let nodes = verification.nodes().map(|part| {
        let (failure, start) = match part.outcome {
            NodeOutcome::Pending => (None, None),
            NodeOutcome::Verified(start) => (None, start.as_ref()),
            NodeOutcome::Failed(failure) | NodeOutcome::Unverified(failure) => {
                (failure.as_ref(), None)
            }
        };
        pb::NodeVerification {
            node: name::node(part.node),
            state: verification_state(part.outcome.state()).into(),
            failure: failure.map(start_failure),
            cold_start: start.map(cold_start),
        }
    });
    pb::Verification {
        id: verification.id().to_owned(),
        state: verification_state(verification.state()).into(),
        request_time: Some(timestamp(verification.request_time())),
        deadline: Some(timestamp(verification.deadline())),
        nodes: nodes.collect(),
        message: verification.message().to_owned(),
        require: match verification.require() {
            Require::All => pb::verification::Require::All,
            Require::Available => pb::verification::Require::Available,
        }
        .into(),
        skip_nodes: verification.skipped().map(name::node).collect(),
    }
}

pub(crate) fn verification_state(state: VerificationState) -> pb::verification::State {
    match state {
        VerificationState::Pending => pb::verification::State::Pending,
        VerificationState::Verified => pb::verification::State::Verified,
        VerificationState::Failed => pb::verification::State::Failed,
        VerificationState::Unverified => pb::verification::State::Unverified,
    }
}

pub(super) fn start_failure(failure: &StartFailure) -> pb::StartFailure {
    use pb::start_failure::Reason;
    pb::StartFailure {
        reason: match failure.reason {
            StartFailureReason::Unspecified => Reason::Unspecified,
            StartFailureReason::Image => Reason::Image,
            StartFailureReason::Engine => Reason::Engine,
            StartFailureReason::Exited => Reason::Exited,
            StartFailureReason::NotReady => Reason::NotReady,
            StartFailureReason::MalformedResponse => Reason::MalformedResponse,
            StartFailureReason::NotAllowed => Reason::NotAllowed,
        }
        .into(),
        message: failure.message.clone(),
        exit_code: failure.exit_code,
        oom_killed: failure.oom_killed,
        log_tail: failure.log_tail.clone(),
        time: failure.time.map(timestamp),
        signal: failure.signal.clone(),
        last_probe: failure.last_probe.clone(),
        engine_error: failure.engine_error.clone(),
    }
}

pub(super) fn cold_start(start: &ColdStart) -> pb::ColdStart {
    pb::ColdStart {
        pull: start.pull.map(duration),
        queue: start.queue.map(duration),
        create: start.create.map(duration),
        start: start.start.map(duration),
        ready: start.ready.map(duration),
        total: start.total.map(duration),
        time: start.time.map(timestamp),
    }
}

pub(crate) fn traffic(traffic: &Traffic) -> pb::Traffic {
    pb::Traffic {
        name: name::traffic(&traffic.service),
        targets: targets(&traffic.split),
        etag: traffic.etag.clone(),
        revision: traffic.revision,
        update_time: Some(timestamp(traffic.update_time)),
        feed_revision: traffic.feed_revision,
    }
}

pub(crate) fn traffic_revision(revision: &TrafficRevision) -> pb::TrafficRevision {
    pb::TrafficRevision {
        name: name::traffic_revision(&revision.service, revision.number),
        number: revision.number,
        targets: targets(&revision.split),
        actor: revision.actor.clone(),
        reason: revision.reason.clone(),
        create_time: Some(timestamp(revision.create_time)),
        rolled_back_from: revision.rolled_back_from,
        feed_revision: revision.feed_revision,
    }
}

fn targets(split: &TrafficSplit) -> Vec<pb::TrafficTarget> {
    let target = |target: &crate::domain::Target| pb::TrafficTarget {
        version: target.version.get(),
        percent: target.percent.get().into(),
        tag: target
            .tag
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    split.targets().iter().map(target).collect()
}
