//! Reads requests. Every missing or invalid field becomes a violation at its path.

use super::read_duration;
use super::settings::read_settings;
use crate::auth::Caller;
use crate::domain::{
    ChangeNote, HostName, Labels, NodeName, ProbeTimingsInput, Protocol, PullPolicy,
    ReadinessInput, RequestId, Require, RollbackTo, ServiceId, ServicePatch, Settings,
    SettingsField, SettingsPatch, TargetInput, Timestamp, Ulimit, VersionNumber, VersionSpec,
    VersionSpecInput, Violations, name,
};
use crate::store::{NewService, WriteOptions};
use cless_proto::v1 as pb;
use std::collections::BTreeSet;

/// The service to create.
pub(crate) fn new_service(
    service_id: String,
    service: Option<pb::Service>,
    violations: &mut Violations,
) -> Option<NewService> {
    let id = violations.take("service_id", ServiceId::parse(service_id));
    let Some(service) = service else {
        violations.push("service", "is missing: send one, if only an empty one");
        return None;
    };
    let hosts = hosts(service.hosts, violations);
    let given = read_settings(
        "service.settings",
        service.settings.unwrap_or_default(),
        violations,
    );
    let settings = Settings::new("service.settings", given, violations);
    let labels = Labels::new("service.labels", service.labels, violations);
    Some(NewService {
        id: id?,
        hosts: hosts?,
        settings: settings?,
        labels: labels?,
    })
}

fn hosts(hosts: Vec<String>, violations: &mut Violations) -> Option<Vec<HostName>> {
    let before = violations.len();
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(hosts.len());
    for (at, host) in hosts.into_iter().enumerate() {
        let field = format!("service.hosts[{at}]");
        let Some(host) = violations.take(field.clone(), HostName::parse(host)) else {
            continue;
        };
        if !seen.insert(host.clone()) {
            violations.push(field, format!("`{host}` is given twice: leave one out"));
        }
        read.push(host);
    }
    (violations.len() == before).then_some(read)
}

/// The changes of an update (AIP-134): the fields of the mask, or without a mask all fields set.
pub(crate) fn patch(
    service: pb::Service,
    mask: Option<prost_types::FieldMask>,
    violations: &mut Violations,
) -> Option<ServicePatch> {
    let before = violations.len();
    let settings_given = service.settings.clone().unwrap_or_default();
    let given = read_settings("service.settings", settings_given, violations);
    let mut named = UpdateMask::default();
    match mask.filter(|mask| !mask.paths.is_empty()) {
        Some(mask) => named.read(&mask.paths, violations),
        None => {
            named.hosts = !service.hosts.is_empty();
            named.labels = !service.labels.is_empty();
            named.settings = service.settings.is_some().then(|| given.given());
        }
    }
    let mut patch = ServicePatch::default();
    if named.hosts {
        patch.hosts = hosts(service.hosts, violations);
    }
    if named.labels {
        patch.labels = Labels::new("service.labels", service.labels, violations);
    }
    if let Some(fields) = named.settings {
        patch.settings = SettingsPatch::new("service.settings", fields, given, violations);
    }
    (violations.len() == before).then_some(patch)
}

/// The fields named by an update mask.
#[derive(Default)]
struct UpdateMask {
    hosts: bool,
    labels: bool,
    settings: Option<BTreeSet<SettingsField>>,
}

impl UpdateMask {
    fn read(&mut self, paths: &[String], violations: &mut Violations) {
        for path in paths {
            match path.as_str() {
                // Full replacement (AIP-134).
                "*" => {
                    self.hosts = true;
                    self.labels = true;
                    self.settings = Some(SettingsField::ALL.into_iter().collect());
                }
                "hosts" => self.hosts = true,
                "labels" => self.labels = true,
                "settings" => self.settings = Some(SettingsField::ALL.into_iter().collect()),
                _ => match path
                    .strip_prefix("settings.")
                    .and_then(SettingsField::parse)
                {
                    Some(field) => {
                        self.settings.get_or_insert_default().insert(field);
                    }
                    None => violations.push(
                        "update_mask",
                        format!(
                            "`{}` cannot be updated: name `*`, `hosts`, `labels`, `settings` or one \
                             of `settings.{}`",
                            shown(path),
                            SettingsField::ALL
                                .map(SettingsField::as_str)
                                .join("`, `settings.")
                        ),
                    ),
                },
            }
        }
    }
}

/// The specification of a version to create.
pub(crate) fn new_version(
    version: Option<pb::Version>,
    violations: &mut Violations,
) -> Option<VersionSpec> {
    let Some(version) = version else {
        violations.push("version", "is missing: send one with `spec.image`");
        return None;
    };
    let Some(spec) = version.spec else {
        violations.push("version.spec", "is missing: send one with `image`");
        return None;
    };
    let before = violations.len();
    let (readiness, probe) = readiness("version.spec.readiness", spec.readiness, violations);
    let pull_policy = pull_policy("version.spec.pull_policy", spec.pull_policy, violations);
    let protocol = protocol("version.spec.protocol", spec.protocol, violations);
    let input = VersionSpecInput {
        image: spec.image,
        port: spec.port,
        env: spec.env,
        command: spec.command,
        args: spec.args,
        cpu_millis: spec.cpu_millis,
        memory_bytes: spec.memory_bytes,
        readiness,
        probe,
        pull_policy: pull_policy.unwrap_or_default(),
        protocol: protocol.unwrap_or_default(),
        pids_limit: spec.pids_limit,
        read_only_root: spec.read_only_root,
        tmpfs: spec.tmpfs,
        user: spec.user,
        stop_signal: spec.stop_signal,
        stop_grace: read_duration("version.spec.stop_grace", spec.stop_grace, violations),
        no_init: spec.no_init,
        cap_add: spec.cap_add,
        tmpfs_exec: spec.tmpfs_exec,
        shm_bytes: spec.shm_bytes,
        ulimits: spec.ulimits.into_iter().map(ulimit).collect(),
        extra_hosts: spec.extra_hosts,
        dns: spec.dns,
        egress: spec.egress,
    };
    let spec = VersionSpec::new("version.spec", input, violations);
    spec.filter(|_| violations.len() == before)
}

fn ulimit(limit: pb::Ulimit) -> Ulimit {
    Ulimit {
        name: limit.name,
        soft: limit.soft,
        hard: limit.hard,
    }
}

fn readiness(
    field: &str,
    probe: Option<pb::ReadinessProbe>,
    violations: &mut Violations,
) -> (ReadinessInput, ProbeTimingsInput) {
    use pb::readiness_probe::Kind;
    let Some(probe) = probe else {
        return Default::default();
    };
    let mut duration =
        |name: &str, value| read_duration(&format!("{field}.{name}"), value, violations);
    let timings = ProbeTimingsInput {
        period: duration("period", probe.period),
        timeout: duration("timeout", probe.timeout),
        initial_delay: duration("initial_delay", probe.initial_delay),
    };
    let kind = match probe.kind {
        Some(Kind::Tcp(pb::TcpProbe {})) => ReadinessInput::Tcp,
        Some(Kind::Http(http)) => ReadinessInput::Http {
            path: http.path,
            status_min: http.status_min,
            status_max: http.status_max,
            host: http.host,
        },
        Some(Kind::Grpc(grpc)) => ReadinessInput::Grpc {
            service: grpc.service,
        },
        Some(Kind::Healthcheck(pb::HealthcheckProbe {})) => ReadinessInput::Healthcheck,
        None => {
            violations.push(
                field,
                "names no kind of probe: give `tcp`, `http`, `grpc` or `healthcheck`, or leave it out",
            );
            ReadinessInput::Tcp
        }
    };
    (kind, timings)
}

fn protocol(field: &str, protocol: i32, violations: &mut Violations) -> Option<Protocol> {
    use pb::version_spec::Protocol as Given;
    match Given::try_from(protocol) {
        Ok(Given::Unspecified | Given::Auto) => Some(Protocol::Auto),
        Ok(Given::Http1) => Some(Protocol::Http1),
        Ok(Given::H2c) => Some(Protocol::H2c),
        Err(_unknown) => {
            let reason = format!(
                "{protocol} is not a protocol: give PROTOCOL_AUTO, PROTOCOL_HTTP1 or PROTOCOL_H2C"
            );
            violations.push(field, reason);
            None
        }
    }
}

fn pull_policy(field: &str, policy: i32, violations: &mut Violations) -> Option<PullPolicy> {
    use pb::version_spec::PullPolicy as Given;
    match Given::try_from(policy) {
        Ok(Given::Unspecified | Given::Missing) => Some(PullPolicy::Missing),
        Ok(Given::Always) => Some(PullPolicy::Always),
        Ok(Given::Never) => Some(PullPolicy::Never),
        Err(_unknown) => {
            let reason = format!(
                "{policy} is not a policy: give PULL_POLICY_MISSING, PULL_POLICY_ALWAYS or \
                 PULL_POLICY_NEVER"
            );
            violations.push(field, reason);
            None
        }
    }
}

/// The targets of a traffic change, not validated.
pub(crate) fn targets(targets: Vec<pb::TrafficTarget>) -> Vec<TargetInput> {
    let input = |target: pb::TrafficTarget| TargetInput {
        version: target.version,
        percent: target.percent,
        tag: target.tag,
    };
    targets.into_iter().map(input).collect()
}

/// The required nodes of a verification, and the excluded ones in the order given.
pub(crate) fn verify_nodes(
    require: i32,
    skip_nodes: &[String],
    violations: &mut Violations,
) -> Option<(Require, Vec<NodeName>)> {
    use pb::verification::Require as Given;
    let require = match Given::try_from(require) {
        Ok(Given::Unspecified | Given::All) => Some(Require::All),
        Ok(Given::Available) => Some(Require::Available),
        Err(_unknown) => {
            let reason = format!("{require} is unknown: give REQUIRE_ALL or REQUIRE_AVAILABLE");
            violations.push("require", reason);
            None
        }
    };
    let mut skipped = Vec::new();
    for (at, node) in skip_nodes.iter().enumerate() {
        skipped.extend(violations.take(format!("skip_nodes[{at}]"), name::parse_node(node)));
    }
    require.map(|require| (require, skipped))
}

/// The target of a rollback.
pub(crate) fn rollback_to(
    revision: i32,
    version: i32,
    violations: &mut Violations,
) -> Option<RollbackTo> {
    if revision < 0 {
        violations.push(
            "revision",
            "is negative: give a traffic revision, or 0 for the last one",
        );
        return None;
    }
    if version == 0 {
        return Some(match revision {
            0 => RollbackTo::Previous,
            number => RollbackTo::Revision(number),
        });
    }
    let number = violations.take("version", VersionNumber::new(version))?;
    if revision > 0 {
        violations.push("version", "excludes `revision`: give one of them");
        return None;
    }
    Some(RollbackTo::Version(number))
}

/// The options of a write.
pub(crate) fn write_options(
    caller: &Caller,
    now: Timestamp,
    validate_only: bool,
    request_id: String,
    violations: &mut Violations,
) -> Option<WriteOptions> {
    let request_id = violations.take("request_id", RequestId::parse(request_id))?;
    Some(WriteOptions {
        now,
        validate_only,
        request_id,
        by: caller.origin.clone(),
    })
}

/// The author of a traffic change and the reason. The author is the principal, if it was verified;
/// the client's own words about it then go into the reason.
pub(crate) fn change_note(
    caller: &Caller,
    actor: String,
    reason: String,
    violations: &mut Violations,
) -> Option<ChangeNote> {
    let note = ChangeNote::new(actor, reason, violations)?;
    let principal = caller.principal();
    Some(if principal.is_verified() {
        note.by(principal)
    } else {
        note
    })
}

/// Clips and escapes text for an error message.
fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

/// The etag that guards a write. `None`: not guarded.
pub(crate) fn etag(etag: &str) -> Option<&str> {
    (!etag.is_empty()).then_some(etag)
}

#[cfg(test)]
mod tests;
