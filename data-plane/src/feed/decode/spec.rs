//! How to run a version: `cless.v1.VersionSpec` -> [`Spec`].

use super::Error;
use crate::route::{Protocol, PullPolicy, Readiness, Spec};
use cless_proto::v1 as pb;

const DEFAULT_CPU_MILLIS: u32 = 1000;
const DEFAULT_MEMORY: u64 = 512 << 20;
/// Beyond it the engine's nanoseconds of cpu no longer fit what it counts them in.
const MAX_CPU_MILLIS: u32 = 1_000_000;
/// The engine counts memory in a signed 64-bit number.
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
        readiness: decode_readiness(spec.readiness)?,
        pull_policy: decode_pull_policy(spec.pull_policy)?,
        protocol: decode_protocol(spec.protocol)?,
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
            Ok(Readiness::Http {
                path: http.path,
                status: min..=max,
            })
        }
        // A probe of a kind this node does not know must not pass for a weaker one.
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
