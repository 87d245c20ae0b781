//! Conversion between the types of cless and of bollard. Pure.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum,
    ContainerSummary, ContainerSummaryStateEnum, HostConfig, HostConfigLogConfig, ResourcesUlimits,
};
use cless_proto::capability;
use std::time::Duration;

use crate::runtime::{
    Container, ContainerOptions, ContainerSpec, ContainerState, Exit, Healthcheck, NetworkNames,
    SandboxSpec,
};

/// Maximum length of a line of container output.
const LOG_LINE_BYTES: usize = 512;

/// The engine's time limit of a HEALTHCHECK that names none.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Network mode prefix for the network of another container.
const NETWORK_OF: &str = "container:";

/// The engine's form of a [`ContainerSpec`], with the documented security defaults.
pub(super) fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let options = &spec.options;
    let none = NetworkNames::default();
    // The engine refuses names for a container in another's network.
    let names = if spec.sandbox.is_some() {
        &none
    } else {
        &options.names
    };
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
            tmpfs: (!spec.tmpfs.is_empty()).then(|| {
                let mounts = spec.tmpfs.iter();
                mounts.map(|mount| tmpfs(mount, options)).collect()
            }),
            runtime: spec.runtime.clone(),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(capabilities(options)),
            // It would disable the capabilities of files, which `cap_add` is for.
            security_opt: (!adds_capabilities(options))
                .then(|| vec!["no-new-privileges".to_owned()]),
            init: Some(!options.no_init),
            shm_size: options
                .shm_bytes
                .and_then(|bytes| i64::try_from(bytes).ok()),
            ulimits: ulimits(options),
            extra_hosts: extra_hosts(names),
            dns: dns(names),
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
            extra_hosts: extra_hosts(&spec.names),
            dns: dns(&spec.names),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Mount options of an in-memory file system: no set-uid bits, no devices, and no programs unless
/// they are asked for.
fn tmpfs((path, size): &(String, u64), options: &ContainerOptions) -> (String, String) {
    let exec = match options.tmpfs_exec.contains(path) {
        true => "exec",
        false => "noexec",
    };
    let options = format!("rw,{exec},nosuid,nodev,mode=1777,size={size}");
    (path.clone(), options)
}

fn added(options: &ContainerOptions) -> impl Iterator<Item = &String> {
    let added = options.cap_add.iter();
    added.filter(|name| !capability::DEFAULT.contains(&name.as_str()))
}

fn adds_capabilities(options: &ContainerOptions) -> bool {
    added(options).next().is_some()
}

fn capabilities(options: &ContainerOptions) -> Vec<String> {
    let default = capability::DEFAULT.map(str::to_owned).into_iter();
    default.chain(added(options).cloned()).collect()
}

fn ulimits(options: &ContainerOptions) -> Option<Vec<ResourcesUlimits>> {
    let limits = options.ulimits.iter();
    let limits = limits.map(|(name, soft, hard)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(*soft),
        hard: Some(*hard),
    });
    (!options.ulimits.is_empty()).then(|| limits.collect())
}

fn extra_hosts(names: &NetworkNames) -> Option<Vec<String>> {
    let lines = names.hosts.iter();
    let lines = lines.map(|(name, address)| format!("{name}:{address}"));
    (!names.hosts.is_empty()).then(|| lines.collect())
}

fn dns(names: &NetworkNames) -> Option<Vec<String>> {
    (!names.dns.is_empty()).then(|| names.dns.iter().map(ToString::to_string).collect())
}

/// Rounds up to whole seconds, the engine's unit.
pub(super) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// The HEALTHCHECK of a container: `CMD` with arguments, or `CMD-SHELL` with a line for the image's
/// shell. `NONE` and an empty test mean that there is none.
fn healthcheck(config: &ContainerConfig) -> Option<Healthcheck> {
    let check = config.healthcheck.as_ref()?;
    let (kind, words) = check.test.as_ref()?.split_first()?;
    let command = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            command.extend(words.iter().cloned());
            command
        }
        _ => return None,
    };
    let timeout = check.timeout.and_then(|nanos| u64::try_from(nanos).ok());
    let timeout = timeout.filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    (!words.is_empty()).then_some(Healthcheck {
        command,
        timeout: timeout.unwrap_or(HEALTHCHECK_TIMEOUT),
    })
}

/// Converts the response to an inspection.
pub(super) fn from_inspect(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|net| net.networks);
    Container {
        id: found.id.unwrap_or_default(),
        name: trim_name(found.name.as_deref().unwrap_or_default()),
        healthcheck: found.config.as_ref().and_then(healthcheck),
        program: found.path.unwrap_or_default(),
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
        healthcheck: None,
        program: String::new(),
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
            options: ContainerOptions::default(),
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
    fn options_are_converted_and_capabilities_of_files_take_effect() {
        let names = NetworkNames {
            hosts: vec![("db".into(), "10.0.0.5".into())],
            dns: vec![[10, 0, 0, 53].into()],
        };
        let options = ContainerOptions {
            no_init: true,
            cap_add: vec!["KILL".into(), "NET_RAW".into()],
            tmpfs_exec: vec!["/x".into()],
            shm_bytes: Some(1 << 20),
            ulimits: vec![("nofile".into(), 1, 2)],
            names,
        };
        let asked = ContainerSpec {
            tmpfs: vec![("/x".into(), 4096)],
            options,
            ..spec()
        };
        let host = container_body(&asked).host_config.unwrap_or_default();
        assert_eq!(host.init, Some(false));
        let added = host.cap_add.unwrap_or_default();
        assert_eq!(
            (added.len(), added.last().map(String::as_str)),
            (7, Some("NET_RAW"))
        );
        assert_eq!(host.security_opt, None);
        assert!(host.tmpfs.unwrap_or_default()["/x"].starts_with("rw,exec,nosuid,nodev,"));
        assert_eq!(host.shm_size, Some(1 << 20));
        assert_eq!(host.ulimits.unwrap_or_default()[0].hard, Some(2));
        assert_eq!(host.extra_hosts, Some(vec!["db:10.0.0.5".to_owned()]));
        assert_eq!(host.dns, Some(vec!["10.0.0.53".to_owned()]));
        let inside = ContainerSpec {
            sandbox: Some("0123abcd".into()),
            ..asked
        };
        let host = container_body(&inside).host_config.unwrap_or_default();
        assert_eq!((host.extra_hosts, host.dns), (None, None));
    }

    #[test]
    fn a_healthcheck_is_a_command_or_a_line_for_the_shell() {
        let check = |test: &[&str], timeout, shell: &[&str]| {
            let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let config = ContainerConfig {
                healthcheck: Some(bollard::models::HealthConfig {
                    test: Some(words(test)),
                    timeout,
                    ..Default::default()
                }),
                shell: (!shell.is_empty()).then(|| words(shell)),
                ..Default::default()
            };
            let found = healthcheck(&config)?;
            Some((found.command.join(" "), found.timeout.as_secs()))
        };
        let found = |command: &str, seconds| Some((command.to_owned(), seconds));
        assert_eq!(check(&["CMD", "/ok", "-q"], None, &[]), found("/ok -q", 30));
        assert_eq!(
            check(&["CMD-SHELL", "a && b"], Some(2_000_000_000), &[]),
            found("/bin/sh -c a && b", 2)
        );
        assert_eq!(
            check(&["CMD-SHELL", "a"], Some(0), &["/bin/bash", "-lc"]),
            found("/bin/bash -lc a", 30)
        );
        for none in [&[][..], &["NONE"], &["CMD"], &["CMD-SHELL"], &["?", "a"]] {
            assert_eq!(check(none, None, &[]), None, "{none:?}");
        }
        assert_eq!(healthcheck(&ContainerConfig::default()), None);
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
            names: NetworkNames::default(),
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
