//! Conversion between the types of cless and of bollard. Pure.
//!
//! Decision: `MemorySwap` equals `Memory`, so swap adds nothing to a container's limit; the engine's
//! default is twice the memory. Under cgroup v1 the bound is one on the sum of both, which does not
//! change when a page moves to swap. So a frozen container's memory may be moved there as it is.
//! Under cgroup v2 the engine derives `memory.swap.max` = 0. Such a container needs `MemorySwap` at
//! twice its memory by an update call while it is frozen, and the bound again before it is resumed;
//! pages that are swapped out then come back on access.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, HealthStatusEnum, HostConfig, HostConfigLogConfig, ResourcesUlimits,
};
use std::time::Duration;

use crate::runtime::{
    Container, ContainerSpec, ContainerState, Error, Exit, Health, SandboxSpec, label,
};

/// Maximum length of a line of container output.
const LOG_LINE_BYTES: usize = 512;

/// Capabilities that containers keep: web server images need these to bind low ports and to switch
/// to their own user.
const CAPABILITIES: [&str; 6] = [
    "CHOWN",
    "SETUID",
    "SETGID",
    "DAC_OVERRIDE",
    "NET_BIND_SERVICE",
    "KILL",
];

/// Limit of open descriptors, soft and hard, if the engine can set as many. Engines often have none,
/// and programs that close every possible descriptor at their start then take seconds.
pub(super) const DESCRIPTORS: u64 = 65_536;

/// Limit of a container's writable layer, where the engine's storage can bound it.
const LAYER_SIZE: &str = "10G";

/// Network mode prefix for the network of another container.
const NETWORK_OF: &str = "container:";

/// The engine's form of a [`ContainerSpec`], with the documented security defaults.
/// `descriptors` is the limit of open ones; `None`: the engine's default.
pub(super) fn container_body(
    spec: &ContainerSpec,
    descriptors: Option<u64>,
) -> ContainerCreateBody {
    let descriptors = descriptors.and_then(|limit| i64::try_from(limit).ok());
    let some_unless_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(spec.env.clone()),
        entrypoint: some_unless_empty(&spec.command),
        cmd: some_unless_empty(&spec.args),
        labels: Some(with_name(&spec.labels, &spec.name)),
        user: spec.user.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: i64::try_from(whole_seconds(spec.stop_grace)).ok(),
        host_config: Some(HostConfig {
            network_mode: Some(match &spec.sandbox {
                Some(id) => format!("{NETWORK_OF}{id}"),
                None => spec.network.clone(),
            }),
            memory: i64::try_from(spec.memory).ok(),
            memory_swap: i64::try_from(spec.memory).ok(),
            ulimits: descriptors.map(|limit| {
                vec![ResourcesUlimits {
                    name: Some("nofile".to_owned()),
                    soft: Some(limit),
                    hard: Some(limit),
                }]
            }),
            nano_cpus: Some(i64::from(spec.cpu_millis) * 1_000_000),
            pids_limit: Some(spec.pids_limit.into()),
            readonly_rootfs: Some(spec.read_only_root),
            tmpfs: (!spec.tmpfs.is_empty()).then(|| spec.tmpfs.iter().map(tmpfs).collect()),
            runtime: spec.runtime.clone(),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            init: Some(true),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "10m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The option that bounds the writable layer.
pub(super) fn layer_limit() -> HashMap<String, String> {
    HashMap::from([("size".to_owned(), LAYER_SIZE.to_owned())])
}

/// Whether the engine's storage may be able to bound a writable layer: overlay2 on XFS needs the
/// mount option `pquota` for it, which the engine does not report.
pub(super) fn may_limit_layers(driver: &str, status: &[Vec<String>]) -> bool {
    let on_xfs = status.iter().any(|row| {
        row.iter()
            .map(String::as_str)
            .eq(["Backing Filesystem", "xfs"])
    });
    matches!(driver, "btrfs" | "zfs") || driver == "overlay2" && on_xfs
}

/// Whether the engine refuses a container because its storage cannot bound the layer.
pub(super) fn is_layer_limit_refused(error: &Error) -> bool {
    matches!(error, Error::Refused(message) | Error::Failed(message)
        if message.contains("storage-opt") || message.contains("pquota"))
}

/// The engine's form of a [`SandboxSpec`], with minimal rights and resources.
pub(super) fn sandbox_body(spec: &SandboxSpec, image: String) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image),
        labels: Some(with_name(&spec.labels, &spec.name)),
        host_config: Some(HostConfig {
            network_mode: Some(spec.network.clone()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            ipc_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Mount options of an in-memory file system. It holds data only: no programs, no set-uid bits, no
/// devices.
fn tmpfs((path, size): &(String, u64)) -> (String, String) {
    let options = format!("rw,noexec,nosuid,nodev,mode=1777,size={size}");
    (path.clone(), options)
}

/// Rounds up to whole seconds, the engine's unit.
pub(super) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

fn health(found: bollard::models::Health) -> Option<Health> {
    match found.status? {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => {
            let last = found.log.and_then(|log| log.into_iter().next_back());
            let output = last.and_then(|check| check.output).unwrap_or_default();
            let line = last_lines(output.as_bytes(), 1).pop();
            Some(Health::Unhealthy(line.unwrap_or_default()))
        }
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    }
}

/// Converts the response to an inspection.
pub(super) fn from_inspect(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|net| net.networks);
    let mode = found.host_config.and_then(|host| host.network_mode);
    let labels = labels(found.config.and_then(|config| config.labels));
    Container {
        id: found.id.unwrap_or_default(),
        name: name_of(&labels, found.name.as_deref().unwrap_or_default()),
        labels,
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING) => ContainerState::Running,
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: address_on(mode.as_deref(), networks),
        sandbox: sandbox_of(mode),
        exit: Exit {
            code: state
                .exit_code
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(-1),
            oom_killed: state.oom_killed.unwrap_or(false),
        },
        health: state.health.and_then(health),
    }
}

/// Converts an entry of a container list.
pub(super) fn from_summary(found: ContainerSummary) -> Container {
    let networks = found.network_settings.and_then(|net| net.networks);
    let mode = found.host_config.and_then(|host| host.network_mode);
    let names = found.names.unwrap_or_default();
    let labels = labels(found.labels);
    Container {
        id: found.id.unwrap_or_default(),
        name: name_of(&labels, names.first().map_or("", String::as_str)),
        labels,
        state: match found.state {
            Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
            Some(ContainerSummaryStateEnum::RUNNING) => ContainerState::Running,
            Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: address_on(mode.as_deref(), networks),
        sandbox: sandbox_of(mode),
        exit: Exit::default(),
        health: None,
    }
}

/// The labels of a new container with that of its name.
fn with_name(labels: &BTreeMap<String, String>, name: &str) -> HashMap<String, String> {
    let own = (label::INSTANCE.to_owned(), name.to_owned());
    labels.clone().into_iter().chain([own]).collect()
}

/// The name given at the creation: the label, or the engine's name for a container without it.
fn name_of(labels: &BTreeMap<String, String>, engine_name: &str) -> String {
    let known = labels.get(label::INSTANCE).cloned();
    known.unwrap_or_else(|| engine_name.trim_start_matches('/').to_owned())
}

fn labels(found: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    found.unwrap_or_default().into_iter().collect()
}

/// The id of the sandbox that a network mode refers to.
fn sandbox_of(network_mode: Option<String>) -> Option<String> {
    let id = network_mode?.strip_prefix(NETWORK_OF)?.to_owned();
    Some(id)
}

/// The address on the network that the container was created on. Others may have connected it to
/// further networks.
fn address_on(
    network_mode: Option<&str>,
    networks: Option<HashMap<String, bollard::models::EndpointSettings>>,
) -> Option<std::net::IpAddr> {
    let endpoint = networks?.remove(network_mode?)?;
    endpoint.ip_address?.parse().ok()
}

/// The last `count` non-empty lines of raw output, each cut at [`LOG_LINE_BYTES`].
pub(super) fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| {
            let end = line.floor_char_boundary(LOG_LINE_BYTES);
            line[..end].to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_in_order_and_cuts_long_ones() {
        let long = "x".repeat(2 * LOG_LINE_BYTES);
        let text = format!("one\n\ntwo\nthree\n{long}\n");
        let tail = last_lines(text.as_bytes(), 3);
        assert_eq!(tail[..2], ["two", "three"]);
        assert_eq!(tail[2].len(), LOG_LINE_BYTES);
    }

    #[test]
    fn invalid_utf8_does_not_break_the_tail() {
        assert_eq!(last_lines(b"\xff\xfe ok\n", 20).len(), 1);
    }

    fn body(spec: &ContainerSpec) -> ContainerCreateBody {
        container_body(spec, Some(DESCRIPTORS))
    }

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "n".into(),
            image: "i".into(),
            env: vec![],
            command: vec![],
            args: vec![],
            labels: BTreeMap::new(),
            memory: 512 << 20,
            cpu_millis: 1500,
            network: "net".into(),
            pids_limit: 512,
            read_only_root: false,
            tmpfs: vec![],
            user: None,
            stop_signal: None,
            stop_grace: Duration::from_secs(10),
            runtime: None,
            sandbox: None,
        }
    }

    #[test]
    fn limits_and_mounts_are_converted() {
        let asked = body(&ContainerSpec {
            pids_limit: 64,
            read_only_root: true,
            tmpfs: vec![("/tmp".into(), 4096)],
            user: Some("app".into()),
            stop_signal: Some("SIGINT".into()),
            stop_grace: Duration::from_millis(1001),
            runtime: Some("runsc".into()),
            ..spec()
        });
        assert_eq!(asked.user.as_deref(), Some("app"));
        assert_eq!(asked.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(asked.stop_timeout, Some(2));
        assert_eq!(asked.healthcheck, None, "the image's own is kept");
        let host = asked.host_config.unwrap_or_default();
        assert_eq!(
            (host.pids_limit, host.readonly_rootfs),
            (Some(64), Some(true))
        );
        assert_eq!(host.runtime.as_deref(), Some("runsc"));
        let options = "rw,noexec,nosuid,nodev,mode=1777,size=4096".to_owned();
        assert_eq!(host.tmpfs, Some([("/tmp".to_owned(), options)].into()));
    }

    #[test]
    fn a_container_drops_all_but_a_few_capabilities() {
        let spec = spec();
        let host = body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.privileged, None);
        assert_eq!(host.binds, None);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.memory, Some(512 << 20));
        assert_eq!(host.memory_swap, host.memory, "swap adds nothing");
        let descriptors = host.ulimits.unwrap_or_default().remove(0);
        assert_eq!(descriptors.name.as_deref(), Some("nofile"));
        assert_eq!(
            (descriptors.soft, descriptors.hard),
            (Some(65_536), Some(65_536))
        );
        assert_eq!(
            host.storage_opt, None,
            "it is set where the storage can do it"
        );
        assert_eq!(body(&spec).entrypoint, None, "the image's own is kept");
        assert_eq!(host.network_mode.as_deref(), Some("net"));
    }

    #[test]
    fn layers_are_bounded_where_the_storage_can_do_it() {
        let backing = |name: &str| {
            let row = |key: &str, value: &str| vec![key.to_owned(), value.to_owned()];
            vec![
                row("Backing Filesystem", name),
                row("Supports d_type", "true"),
            ]
        };
        for (driver, status, may) in [
            ("overlay2", backing("xfs"), true),
            ("overlay2", backing("extfs"), false),
            ("overlay2", vec![], false),
            ("btrfs", vec![], true),
            ("zfs", vec![], true),
            ("vfs", backing("extfs"), false),
        ] {
            assert_eq!(
                may_limit_layers(driver, &status),
                may,
                "{driver} {status:?}"
            );
        }
        let text =
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        assert!(is_layer_limit_refused(&Error::Failed(text.to_owned())));
        assert!(!is_layer_limit_refused(&Error::Failed(
            "OCI runtime".to_owned()
        )));
    }

    #[test]
    fn a_container_in_a_sandbox_names_its_network_and_is_known_by_it() {
        let spec = ContainerSpec {
            sandbox: Some("0123abcd".into()),
            ..spec()
        };
        let host = body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.network_mode.as_deref(), Some("container:0123abcd"));
        assert_eq!(sandbox_of(host.network_mode), spec.sandbox);
        assert_eq!(sandbox_of(Some("cless-net".into())), None);
    }

    #[test]
    fn the_address_is_that_of_the_creations_network_whatever_else_was_connected() {
        let endpoint = |address: &str| bollard::models::EndpointSettings {
            ip_address: Some(address.to_owned()),
            ..Default::default()
        };
        let others = (0..20).map(|n| (format!("other{n}"), endpoint(&format!("10.9.0.{n}"))));
        let own = ("cless-n1".to_owned(), endpoint("10.1.0.2"));
        let networks: HashMap<_, _> = others.clone().chain([own]).collect();
        let address = address_on(Some("cless-n1"), Some(networks));
        assert_eq!(address, "10.1.0.2".parse().ok());
        assert_eq!(address_on(Some("cless-n1"), Some(others.collect())), None);
        assert_eq!(address_on(None, None), None);
    }

    #[test]
    fn a_container_is_known_by_its_label_after_a_rename() {
        let labels: BTreeMap<_, _> = with_name(&BTreeMap::new(), "cless-a").into_iter().collect();
        assert_eq!(name_of(&labels, "/renamed"), "cless-a");
        assert_eq!(name_of(&BTreeMap::new(), "/older"), "older");
    }

    #[test]
    fn a_sandbox_has_no_rights_no_log_and_nothing_to_write_to() {
        let spec = SandboxSpec {
            name: "s".into(),
            labels: BTreeMap::new(),
            network: "net".into(),
        };
        let host = sandbox_body(&spec, "pause".into())
            .host_config
            .unwrap_or_default();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.cap_add, None);
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.network_mode.as_deref(), Some("net"));
    }
}
