//! Keys of compose services that cless has nothing for, each with a remedy.

/// When a key has an effect that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Whenever it is given.
    Always,
    /// If it is `true`.
    IfTrue,
    /// For each item.
    Each,
}

const FIXED: &str = "fixed by the node, which isolates containers: remove it";
const LIMIT: &str = "not a limit that cless has: use `cpus`, `mem_limit` and `pids_limit`";
const NAMED: &str = "services do not find each other by name: use the URL of a service, or --egress and `extra_hosts` for a server on the node";
const FILE: &str =
    "files are not mounted: build them into the image, or pass the value in `environment`";
const IMAGE: &str = "comes from the image: set it there";

/// By key.
pub(super) const KEYS: &[(&str, Lost, &str)] = &[
    ("annotations", Lost::Always, "not kept: use `labels`"),
    ("attach", Lost::Always, "logs are not attached: remove it"),
    ("blkio_config", Lost::Always, LIMIT),
    (
        "build",
        Lost::Always,
        "images are not built here: build and push it, and name it in `image`",
    ),
    ("cgroup", Lost::Always, FIXED),
    ("cgroup_parent", Lost::Always, FIXED),
    ("configs", Lost::Each, FILE),
    (
        "container_name",
        Lost::Always,
        "containers are named by the node: remove it",
    ),
    ("cpu_count", Lost::Always, LIMIT),
    ("cpu_percent", Lost::Always, LIMIT),
    ("cpu_period", Lost::Always, LIMIT),
    ("cpu_quota", Lost::Always, LIMIT),
    ("cpu_rt_period", Lost::Always, LIMIT),
    ("cpu_rt_runtime", Lost::Always, LIMIT),
    ("cpu_shares", Lost::Always, LIMIT),
    ("cpuset", Lost::Always, LIMIT),
    ("credential_spec", Lost::Always, FIXED),
    (
        "depends_on",
        Lost::Always,
        "instances start on a request, in no order: let the app retry its connections",
    ),
    (
        "develop",
        Lost::Always,
        "files are not watched: deploy each image",
    ),
    ("device_cgroup_rules", Lost::Always, FIXED),
    ("devices", Lost::Each, "devices are not passed: remove it"),
    ("dns_opt", Lost::Always, "use `dns` alone"),
    ("dns_search", Lost::Always, "use full host names"),
    (
        "domainname",
        Lost::Always,
        "containers are named by the node: remove it",
    ),
    ("driver_opts", Lost::Always, FIXED),
    (
        "extends",
        Lost::Always,
        "not merged: copy the keys of the other service here",
    ),
    ("external_links", Lost::Always, NAMED),
    ("gpus", Lost::Always, "devices are not passed: remove it"),
    ("group_add", Lost::Always, FIXED),
    (
        "hostname",
        Lost::Always,
        "containers are named by the node: remove it",
    ),
    ("ipc", Lost::Always, FIXED),
    ("isolation", Lost::Always, FIXED),
    ("label_file", Lost::Always, "not read: write `labels`"),
    ("links", Lost::Always, NAMED),
    (
        "logging",
        Lost::Always,
        "logs are those of the node's engine: configure it there",
    ),
    ("mac_address", Lost::Always, FIXED),
    ("mem_reservation", Lost::Always, LIMIT),
    ("mem_swappiness", Lost::Always, LIMIT),
    ("memswap_limit", Lost::Always, LIMIT),
    (
        "models",
        Lost::Always,
        "not provided: pass an address in `environment`",
    ),
    ("networks", Lost::Always, NAMED),
    ("oom_kill_disable", Lost::Always, FIXED),
    ("oom_score_adj", Lost::Always, FIXED),
    ("pid", Lost::Always, FIXED),
    (
        "platform",
        Lost::Always,
        "nodes run images of their own platform: remove it",
    ),
    (
        "post_start",
        Lost::Always,
        "hooks are not run: do it in the image's entry point",
    ),
    (
        "pre_stop",
        Lost::Always,
        "hooks are not run: handle the stop signal in the app",
    ),
    (
        "privileged",
        Lost::IfTrue,
        "not possible: name the capabilities in `cap_add`",
    ),
    (
        "provider",
        Lost::Always,
        "not provided: pass an address in `environment`",
    ),
    ("runtime", Lost::Always, FIXED),
    ("secrets", Lost::Each, FILE),
    ("security_opt", Lost::Each, FIXED),
    (
        "stdin_open",
        Lost::IfTrue,
        "a server has no terminal: remove it",
    ),
    ("storage_opt", Lost::Always, LIMIT),
    ("sysctls", Lost::Always, FIXED),
    ("tty", Lost::IfTrue, "a server has no terminal: remove it"),
    ("use_api_socket", Lost::IfTrue, "not possible: remove it"),
    ("userns_mode", Lost::Always, FIXED),
    ("uts", Lost::Always, FIXED),
    (
        "volumes_from",
        Lost::Always,
        "files do not outlive an instance: use a database or an object store",
    ),
    ("working_dir", Lost::Always, IMAGE),
];

/// When and why a key is lost; `None` for another key.
pub(super) fn find(key: &str) -> Option<(Lost, &'static str)> {
    let found = KEYS.iter().find(|(name, _, _)| *name == key);
    found.map(|(_, when, remedy)| (*when, *remedy))
}
