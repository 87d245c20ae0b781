//! Conversion between the types of cless and of bollard. Pure.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, HealthStatusEnum, HostConfig, HostConfigLogConfig,
};
use std::time::Duration;

use crate::runtime::{Container, ContainerSpec, ContainerState, Exit, Health, SandboxSpec};

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

/// Network mode prefix for the network of another container.
const NETWORK_OF: &str = "container:";

/// The engine's form of a [`ContainerSpec`], with the documented security defaults.
pub(super) fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let some_unless_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(spec.env.clone()),
        entrypoint: some_unless_empty(&spec.command),
        cmd: some_unless_empty(&spec.args),
        labels: Some(spec.labels.clone().into_iter().collect()),
        user: spec.user.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: i64::try_from(whole_seconds(spec.stop_grace)).ok(),
        host_config: Some(HostConfig {
            network_mode: Some(match &spec.sandbox {
                Some(id) => format!("{NETWORK_OF}{id}"),
                None => spec.network.clone(),
            }),
            memory: i64::try_from(spec.memory).ok(),
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

/// The engine's form of a [`SandboxSpec`], with minimal rights and resources.
pub(super) fn sandbox_body(spec: &SandboxSpec, image: String) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image),
        labels: Some(spec.labels.clone().into_iter().collect()),
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
    Container {
        id: found.id.unwrap_or_default(),
        name: trim_name(found.name.as_deref().unwrap_or_default()),
        labels: labels(found.config.and_then(|config| config.labels)),
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING) => ContainerState::Running,
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: networks.and_then(first_address),
        sandbox: sandbox_of(found.host_config.and_then(|host| host.network_mode)),
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
    let names = found.names.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: trim_name(names.first().map_or("", String::as_str)),
        labels: labels(found.labels),
        state: match found.state {
            Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
            Some(ContainerSummaryStateEnum::RUNNING) => ContainerState::Running,
            Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: networks.and_then(first_address),
        sandbox: sandbox_of(found.host_config.and_then(|host| host.network_mode)),
        exit: Exit::default(),
        health: None,
    }
}

fn trim_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn labels(found: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    found.unwrap_or_default().into_iter().collect()
}

/// The id of the sandbox that a network mode refers to.
fn sandbox_of(network_mode: Option<String>) -> Option<String> {
    let id = network_mode?.strip_prefix(NETWORK_OF)?.to_owned();
    Some(id)
}

fn first_address(
    networks: HashMap<String, bollard::models::EndpointSettings>,
) -> Option<std::net::IpAddr> {
    networks
        .into_values()
        .find_map(|endpoint| endpoint.ip_address?.parse().ok())
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
        let asked = container_body(&ContainerSpec {
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
        let host = container_body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.privileged, None);
        assert_eq!(host.binds, None);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.memory, Some(512 << 20));
        assert_eq!(
            container_body(&spec).entrypoint,
            None,
            "the image's own is kept"
        );
        assert_eq!(host.network_mode.as_deref(), Some("net"));
    }

    #[test]
    fn a_container_in_a_sandbox_names_its_network_and_is_known_by_it() {
        let spec = ContainerSpec {
            sandbox: Some("0123abcd".into()),
            ..spec()
        };
        let host = container_body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.network_mode.as_deref(), Some("container:0123abcd"));
        assert_eq!(sandbox_of(host.network_mode), spec.sandbox);
        assert_eq!(sandbox_of(Some("cless-net".into())), None);
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
