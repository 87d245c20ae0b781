//! Decodes `cless.v1.VersionSpec` into a [`Spec`].

use super::Error;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::route::{ContainerOptions, ProbeTimings, Protocol, PullPolicy, Readiness, Spec, Ulimit};
use cless_proto::{capability, endpoint, v1 as pb};

const DEFAULT_CPU_MILLIS: u32 = 1000;
const DEFAULT_MEMORY: u64 = 512 << 20;
const DEFAULT_PIDS: u32 = 512;
const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);
/// Upper bound of durations in a specification: above the control plane's own limit, and far below
/// the overflow of an `Instant`.
const MAX_SPAN: Duration = Duration::from_secs(24 * 3600);
/// Above this, nanoseconds of CPU overflow the engine's integer.
const MAX_CPU_MILLIS: u32 = 1_000_000;
/// The engine stores memory as a signed 64-bit integer.
const MAX_MEMORY: u64 = i64::MAX as u64;

pub(super) fn decode(spec: pb::VersionSpec) -> Result<Spec, Error> {
    if spec.image.is_empty() || spec.image.contains('\0') {
        return Err(Error::new("image", "is no image reference"));
    }
    let port = u16::try_from(spec.port).map_err(|_| Error::new("port", "is over 65535"))?;
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::new(format!("env[{name:?}]"), "is no NAME=VALUE"));
        }
    }
    for (field, words) in [("command", &spec.command), ("args", &spec.args)] {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(Error::new(field, "holds a NUL"));
        }
    }
    let cpu_millis = if spec.cpu_millis == 0 {
        DEFAULT_CPU_MILLIS
    } else {
        spec.cpu_millis
    };
    if cpu_millis > MAX_CPU_MILLIS {
        return Err(Error::new("cpu_millis", "is over 1 000 000"));
    }
    let memory_bytes = if spec.memory_bytes == 0 {
        DEFAULT_MEMORY
    } else {
        spec.memory_bytes
    };
    if memory_bytes > MAX_MEMORY {
        return Err(Error::new("memory_bytes", "is over 2^63 - 1"));
    }
    Ok(Spec {
        image: spec.image,
        port: (port != 0).then_some(port),
        env: spec.env.into_iter().collect(),
        command: spec.command,
        args: spec.args,
        cpu_millis,
        memory_bytes,
        probe: decode_timings(spec.readiness.as_ref())?,
        readiness: decode_readiness(spec.readiness)?,
        pull_policy: decode_pull_policy(spec.pull_policy)?,
        protocol: decode_protocol(spec.protocol)?,
        pids_limit: decode_pids(spec.pids_limit)?,
        read_only_root: spec.read_only_root,
        tmpfs: decode_tmpfs(spec.tmpfs, memory_bytes)?,
        user: decode_name("user", spec.user)?,
        stop_signal: decode_name("stop_signal", spec.stop_signal)?,
        stop_grace: decode_span("stop_grace", spec.stop_grace, DEFAULT_STOP_GRACE)?,
        options: ContainerOptions {
            no_init: spec.no_init,
            cap_add: decode_capabilities(spec.cap_add)?,
            tmpfs_exec: spec.tmpfs_exec,
            shm_bytes: decode_shm(spec.shm_bytes, memory_bytes)?,
            ulimits: decode_ulimits(spec.ulimits)?,
            extra_hosts: decode_hosts(spec.extra_hosts)?,
            dns: decode_each("dns", spec.dns)?,
            egress: decode_each("egress", spec.egress)?,
        },
    })
}

/// An unknown name may be a capability that this node cannot judge.
fn decode_capabilities(given: Vec<String>) -> Result<Vec<String>, Error> {
    let decoded = given.iter().map(|name| {
        let known = capability::parse(name).map(str::to_owned);
        known.ok_or_else(|| Error::new("cap_add", format!("{name:?} is not known")))
    });
    decoded.collect()
}

fn decode_shm(given: u64, memory: u64) -> Result<Option<u64>, Error> {
    if given > memory {
        return Err(Error::new("shm_bytes", "is larger than the memory"));
    }
    Ok((given > 0).then_some(given))
}

fn decode_ulimits(given: Vec<pb::Ulimit>) -> Result<Vec<Ulimit>, Error> {
    let decoded = given.into_iter().map(|limit| {
        let pb::Ulimit { name, soft, hard } = limit;
        let known = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase());
        if !known || soft < -1 || hard < -1 {
            return Err(Error::new("ulimits", "holds an invalid limit"));
        }
        Ok(Ulimit { name, soft, hard })
    });
    decoded.collect()
}

/// The engine joins name and address by a colon and reads `host-gateway` as this node.
fn decode_hosts(
    given: std::collections::BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, Error> {
    for (name, address) in &given {
        let known = address == "host-gateway" || address.parse::<IpAddr>().is_ok();
        if !endpoint::is_name(name) || !known {
            return Err(Error::new(
                format!("extra_hosts[{name:?}]"),
                "is no name with an address",
            ));
        }
    }
    Ok(given.into_iter().collect())
}

fn decode_each<T: FromStr>(field: &str, given: Vec<String>) -> Result<Vec<T>, Error>
where
    T::Err: std::fmt::Display,
{
    let decoded = given
        .iter()
        .map(|text| text.parse().map_err(|error| Error::new(field, error)));
    decoded.collect()
}

fn decode_pids(given: u32) -> Result<u32, Error> {
    match given {
        0 => Ok(DEFAULT_PIDS),
        // The engine reads a signed integer, in which -1 means unlimited.
        1..=0x7fff_ffff => Ok(given),
        _ => Err(Error::new("pids_limit", "is over 2^31 - 1")),
    }
}

/// Paths become map keys and sizes become mount options, so only plain paths and numbers may pass.
fn decode_tmpfs(
    given: std::collections::BTreeMap<String, u64>,
    memory: u64,
) -> Result<Vec<(String, u64)>, Error> {
    for (path, size) in &given {
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let rest = path
            .strip_prefix('/')
            .filter(|rest| rest.split('/').all(plain));
        let first = rest.and_then(|rest| rest.split('/').next());
        if first.is_none_or(|first| matches!(first, "proc" | "sys" | "dev")) {
            return Err(Error::new(
                format!("tmpfs[{path:?}]"),
                "is no mount point for a container",
            ));
        }
        if *size == 0 || *size > memory {
            return Err(Error::new(
                format!("tmpfs[{path:?}]"),
                "is empty or larger than the memory",
            ));
        }
    }
    Ok(given.into_iter().collect())
}

/// A user or signal name, resolved by the engine; `None` if empty.
fn decode_name(field: &str, given: String) -> Result<Option<String>, Error> {
    if !given
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'))
    {
        return Err(Error::new(
            field,
            "contains a character that is not allowed",
        ));
    }
    Ok((!given.is_empty()).then_some(given))
}

fn decode_span(
    field: &str,
    given: Option<prost_types::Duration>,
    default: Duration,
) -> Result<Duration, Error> {
    let Some(given) = given else {
        return Ok(default);
    };
    Duration::try_from(given)
        .ok()
        .filter(|span| *span <= MAX_SPAN)
        .ok_or_else(|| Error::new(field, "is negative or over a day"))
}

fn decode_timings(probe: Option<&pb::ReadinessProbe>) -> Result<ProbeTimings, Error> {
    let default = ProbeTimings::default();
    let Some(probe) = probe else {
        return Ok(default);
    };
    let nonzero = |field: &str, given, default| match decode_span(field, given, default)? {
        Duration::ZERO => Err(Error::new(field, "is zero")),
        span => Ok(span),
    };
    Ok(ProbeTimings {
        period: nonzero("readiness.period", probe.period, default.period)?,
        timeout: nonzero("readiness.timeout", probe.timeout, default.timeout)?,
        initial_delay: decode_span(
            "readiness.initial_delay",
            probe.initial_delay,
            default.initial_delay,
        )?,
    })
}

fn decode_readiness(probe: Option<pb::ReadinessProbe>) -> Result<Readiness, Error> {
    use pb::readiness_probe::Kind;
    let Some(probe) = probe else {
        return Ok(Readiness::Tcp);
    };
    match probe.kind {
        Some(Kind::Tcp(pb::TcpProbe {})) => Ok(Readiness::Tcp),
        Some(Kind::Http(http)) => {
            let valid = http.path.starts_with('/')
                && http::uri::PathAndQuery::try_from(http.path.as_str()).is_ok();
            if !valid {
                return Err(Error::new("readiness.http.path", "is no path"));
            }
            let or = |given: u32, default| if given == 0 { default } else { given };
            let (min, max) = (or(http.status_min, 200), or(http.status_max, 399));
            let status = |field, given| {
                u16::try_from(given)
                    .ok()
                    .filter(|status| (100..=599).contains(status))
                    .ok_or_else(|| Error::new(field, "is no status from 100 to 599"))
            };
            let min = status("readiness.http.status_min", min)?;
            let max = status("readiness.http.status_max", max)?;
            if min > max {
                return Err(Error::new(
                    "readiness.http.status_min",
                    "is over status_max",
                ));
            }
            if http::HeaderValue::from_str(&http.host).is_err() {
                return Err(Error::new("readiness.http.host", "is no header value"));
            }
            Ok(Readiness::Http {
                path: http.path,
                status: min..=max,
                host: http.host,
            })
        }
        Some(Kind::Grpc(grpc)) => {
            if grpc.service.contains('\0') {
                return Err(Error::new("readiness.grpc.service", "holds a NUL"));
            }
            Ok(Readiness::Grpc {
                service: grpc.service,
            })
        }
        Some(Kind::Healthcheck(pb::HealthcheckProbe {})) => Ok(Readiness::Healthcheck),
        // An unknown probe must not be replaced by a weaker one.
        None => Err(Error::new(
            "readiness",
            "is of a kind that this node does not know",
        )),
    }
}

fn decode_pull_policy(policy: i32) -> Result<PullPolicy, Error> {
    use pb::version_spec::PullPolicy as Wire;
    match Wire::try_from(policy) {
        Ok(Wire::Unspecified | Wire::Missing) => Ok(PullPolicy::Missing),
        Ok(Wire::Always) => Ok(PullPolicy::Always),
        Ok(Wire::Never) => Ok(PullPolicy::Never),
        Err(unknown) => Err(Error::new("pull_policy", unknown)),
    }
}

fn decode_protocol(protocol: i32) -> Result<Protocol, Error> {
    use pb::version_spec::Protocol as Wire;
    match Wire::try_from(protocol) {
        Ok(Wire::Unspecified | Wire::Auto) => Ok(Protocol::Auto),
        Ok(Wire::Http1) => Ok(Protocol::Http1),
        Ok(Wire::H2c) => Ok(Protocol::H2c),
        Err(unknown) => Err(Error::new("protocol", unknown)),
    }
}
