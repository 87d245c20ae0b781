//! The limits and the readiness probe of a version.

use cless_proto::v1 as pb;
use pb::readiness_probe::Kind;

use crate::output::table::DetailPage;
use crate::text;

/// Limits other than CPU and memory; options left to the image are omitted.
pub(super) fn limits(spec: &pb::VersionSpec, page: &mut DetailPage) {
    if spec.pids_limit > 0 {
        page.line("Processes", spec.pids_limit.to_string());
    }
    if spec.read_only_root {
        page.line("Root", "read-only");
    }
    page.line("Tmpfs", mounts(spec))
        .line("User", text::clean(&spec.user));
    let grace = spec.stop_grace.as_ref().map(|grace| {
        if *grace == prost_types::Duration::default() {
            "no grace period".to_owned()
        } else {
            format!("{} grace period", text::proto_duration(Some(grace)))
        }
    });
    let signal = Some(text::clean(&spec.stop_signal)).filter(|signal| !signal.is_empty());
    let stop: Vec<String> = [signal, grace].into_iter().flatten().collect();
    page.line("Stop", stop.join(", "));
    options(spec, page);
}

/// Options that few versions use; omitted unless given.
fn options(spec: &pb::VersionSpec, page: &mut DetailPage) {
    if spec.no_init {
        page.line("Init", "none: the process is PID 1");
    }
    if spec.shm_bytes > 0 {
        page.line("Shm", text::size(spec.shm_bytes));
    }
    page.line("Capabilities", text::clean(&spec.cap_add.join(", ")))
        .line("Ulimits", ulimits(spec))
        .line("Hosts", hosts(spec))
        .line("DNS", text::clean(&spec.dns.join(", ")))
        .line("Egress", text::clean(&spec.egress.join(", ")));
}

/// The in-memory file systems.
pub(super) fn mounts(spec: &pb::VersionSpec) -> String {
    let mounts = spec.tmpfs.iter().map(|(path, size)| {
        let exec = if spec.tmpfs_exec.contains(path) {
            " exec"
        } else {
            ""
        };
        format!("{} {}{exec}", text::clean(path), text::size(*size))
    });
    mounts.collect::<Vec<_>>().join(", ")
}

/// The resource limits of processes.
pub(super) fn ulimits(spec: &pb::VersionSpec) -> String {
    let shown = |value: i64| match value {
        -1 => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let limits = spec.ulimits.iter().map(|limit| {
        let (soft, hard) = (shown(limit.soft), shown(limit.hard));
        format!("{}={soft}:{hard}", text::clean(&limit.name))
    });
    limits.collect::<Vec<_>>().join(", ")
}

/// The additional lines of `/etc/hosts`.
pub(super) fn hosts(spec: &pb::VersionSpec) -> String {
    let hosts = spec.extra_hosts.iter();
    let hosts = hosts.map(|(name, address)| text::clean(&format!("{name}:{address}")));
    hosts.collect::<Vec<_>>().join(", ")
}

/// The port in force, as the nodes report it if the image decides.
pub(super) fn port(version: &pb::Version) -> String {
    let given = version.spec.as_ref().map_or(0, |spec| spec.port);
    if given > 0 {
        return given.to_string();
    }
    let nodes = version.status.iter().flat_map(|status| &status.nodes);
    let mut found: Vec<u32> = nodes
        .map(|node| node.port)
        .filter(|port| *port > 0)
        .collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return "from the image".to_owned();
    }
    let found: Vec<String> = found.iter().map(u32::to_string).collect();
    format!("{} (from the image)", found.join(", "))
}

/// The probe, with timings that differ from the defaults.
pub(super) fn readiness(spec: &pb::VersionSpec) -> String {
    let probe = spec.readiness.clone().unwrap_or_default();
    let mut line = match &probe.kind {
        Some(Kind::Http(http)) => {
            let or = |status, default| if status == 0 { default } else { status };
            let (low, high) = (or(http.status_min, 200), or(http.status_max, 399));
            let host = match text::clean(&http.host) {
                host if host.is_empty() => host,
                host => format!(" with Host {host}"),
            };
            format!("GET {}{host} returns {low}-{high}", text::clean(&http.path))
        }
        Some(Kind::Grpc(grpc)) if grpc.service.is_empty() => "gRPC health is SERVING".to_owned(),
        Some(Kind::Grpc(grpc)) => {
            format!("gRPC health of {} is SERVING", text::clean(&grpc.service))
        }
        Some(Kind::Healthcheck(_)) => "HEALTHCHECK of the image".to_owned(),
        Some(Kind::Tcp(_)) | None => "TCP connect to the port".to_owned(),
    };
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let mut timings = Vec::new();
    for (name, given, default) in [
        ("interval", probe.period, duration(0, 50_000_000)),
        ("timeout", probe.timeout, duration(1, 0)),
        ("delay", probe.initial_delay, duration(0, 0)),
    ] {
        if given.is_some() && given != default {
            timings.push(format!("{name} {}", text::proto_duration(given.as_ref())));
        }
    }
    if !timings.is_empty() {
        line.push_str(&format!(" ({})", timings.join(", ")));
    }
    line
}
