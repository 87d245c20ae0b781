//! The bodies of the engine's create calls. Pure.
//!
//! Decision: `MemorySwap` equals `Memory`, so swap adds nothing to a container's limit; the engine's
//! default is twice the memory. Under cgroup v1 the bound is one on the sum of both, which does not
//! change when a page moves to swap. So a frozen container's memory may be moved there as it is.
//! Under cgroup v2 the engine derives `memory.swap.max` = 0. Such a container needs `MemorySwap` at
//! twice its memory by an update call while it is frozen, and the bound again before it is resumed;
//! pages that are swapped out then come back on access.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits};
use cless_proto::capability;
use std::time::Duration;

use crate::runtime::{ContainerOptions, ContainerSpec, Error, NetworkNames, SandboxSpec, label};

/// Limit of open descriptors, soft and hard, if the engine can set as many. Engines often have none,
/// and programs that close every possible descriptor at their start then take seconds.
pub(super) const DESCRIPTORS: u64 = 65_536;

/// Limit of a container's writable layer, where the engine's storage can bound it.
const LAYER_SIZE: &str = "10G";

/// Network mode prefix for the network of another container.
pub(super) const NETWORK_OF: &str = "container:";

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

/// The labels of a new container with that of its name.
pub(super) fn with_name(labels: &BTreeMap<String, String>, name: &str) -> HashMap<String, String> {
    let own = (label::INSTANCE.to_owned(), name.to_owned());
    labels.clone().into_iter().chain([own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_container_in_a_sandbox_names_its_network() {
        let spec = ContainerSpec {
            sandbox: Some("0123abcd".into()),
            ..spec()
        };
        let host = body(&spec).host_config.unwrap_or_default();
        assert_eq!(host.network_mode.as_deref(), Some("container:0123abcd"));
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
