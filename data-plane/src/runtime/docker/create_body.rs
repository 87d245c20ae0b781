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
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum,
    ContainerSummary, ContainerSummaryStateEnum, HostConfig, HostConfigLogConfig, ResourcesUlimits,
};
use cless_proto::capability;
use std::time::Duration;

use crate::runtime::{
    Container, ContainerOptions, ContainerSpec, ContainerState, Error, Exit, Healthcheck,
    NetworkNames, SandboxSpec, label,
};

/// Maximum length of a line of container output.
const LOG_LINE_BYTES: usize = 512;

/// The engine's time limit of a HEALTHCHECK that names none.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(30);

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
            ulimits: ulimits(options, descriptors),
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

/// The limits of a version, and that of descriptors unless the version sets its own.
fn ulimits(options: &ContainerOptions, descriptors: Option<i64>) -> Option<Vec<ResourcesUlimits>> {
    let mut limits: Vec<_> = options
        .ulimits
        .iter()
        .map(|(name, soft, hard)| ulimit(name, *soft, *hard))
        .collect();
    if let Some(limit) = descriptors
        && !options.ulimits.iter().any(|(name, ..)| name == "nofile")
    {
        limits.push(ulimit("nofile", limit, limit));
    }
    (!limits.is_empty()).then_some(limits)
}

fn ulimit(name: &str, soft: i64, hard: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    }
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
    let mode = found.host_config.and_then(|host| host.network_mode);
    let healthcheck = found.config.as_ref().and_then(healthcheck);
    let labels = labels(found.config.and_then(|config| config.labels));
    Container {
        id: found.id.unwrap_or_default(),
        name: name_of(&labels, found.name.as_deref().unwrap_or_default()),
        healthcheck,
        program: found.path.unwrap_or_default(),
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
        healthcheck: None,
        program: String::new(),
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
            options: ContainerOptions::default(),
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
        let host = container_body(&asked, Some(9))
            .host_config
            .unwrap_or_default();
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
        let host = container_body(&inside, None)
            .host_config
            .unwrap_or_default();
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
