//! The readiness probe of a container, and its timings.

use std::time::Duration;

use cless_proto::endpoint;
use serde::{Deserialize, Serialize};

use super::input::{ProbeTimingsInput, ReadinessInput};
use super::span_in_range;
use crate::domain::error::{Reason, Violations};

/// Longer than any real health path, and short enough for a log line.
const PATH_MAX: usize = 1024;
/// Longer than any real name of a gRPC service.
const GRPC_SERVICE_MAX: usize = 255;
/// The longest DNS name with a port is shorter.
const HOST_MAX: usize = 255;

/// The readiness probe of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Readiness {
    /// The port accepts a TCP connection.
    #[default]
    Tcp,
    /// A GET of `path` returns a status from `status_min` to `status_max`.
    Http {
        /// Starts with `/`.
        path: String,
        /// 100 to 599.
        status_min: u16,
        /// 100 to 599, at least `status_min`.
        status_max: u16,
        /// Host header; empty for the default host of the service.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        host: String,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// The service name; empty for the whole server.
        service: String,
    },
    /// The image's HEALTHCHECK reports healthy.
    Healthcheck,
}

impl Readiness {
    /// Validates the probe at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: ReadinessInput,
        violations: &mut Violations,
    ) -> Option<Self> {
        match input {
            ReadinessInput::Tcp => Some(Self::Tcp),
            ReadinessInput::Healthcheck => Some(Self::Healthcheck),
            ReadinessInput::Grpc { service } => {
                let service =
                    violations.take(format!("{field}.grpc.service"), grpc_service(service));
                Some(Self::Grpc { service: service? })
            }
            ReadinessInput::Http {
                path,
                status_min,
                status_max,
                host,
            } => {
                let host = violations.take(format!("{field}.http.host"), http_host(host));
                http(field, path, (status_min, status_max), host, violations)
            }
        }
    }
}

/// A host name or an IP address, with an optional port.
fn http_host(host: String) -> Result<String, Reason> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host.as_str(), None),
    };
    let bracketed = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let good_name = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.parse::<std::net::Ipv4Addr>().is_ok() || endpoint::is_name(name),
    };
    let good_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host.is_empty() || (good_name && good_port && host.len() <= HOST_MAX) {
        return Ok(host);
    }
    Err(Reason::new(format!(
        "is not a Host header: give a host name or an IP address, with an optional port, such as \
         `shop.example.org`, of at most {HOST_MAX} characters, or leave it out for the service's own host"
    )))
}

fn grpc_service(service: String) -> Result<String, Reason> {
    if service.len() > GRPC_SERVICE_MAX || !service.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Reason::new(format!(
            "is not the name of a gRPC service: give one such as `shop.v1.Cart`, of at most \
             {GRPC_SERVICE_MAX} visible ASCII characters, or leave it out to ask for the whole server"
        )));
    }
    Ok(service)
}

fn http(
    field: &str,
    path: String,
    (status_min, status_max): (u32, u32),
    host: Option<String>,
    violations: &mut Violations,
) -> Option<Readiness> {
    let before = violations.len();
    if !path.starts_with('/')
        || path.len() > PATH_MAX
        || !path.bytes().all(|b| b.is_ascii_graphic())
    {
        violations.push(
            format!("{field}.http.path"),
            format!(
                "is not a path: begin with `/`, use at most {PATH_MAX} visible ASCII characters, and percent-encode the others"
            ),
        );
    }
    let mut status = |name: &str, given: u32, default: u16| {
        let given = if given == 0 {
            u32::from(default)
        } else {
            given
        };
        match u16::try_from(given) {
            Ok(code @ 100..=599) => code,
            _ => {
                violations.push(
                    format!("{field}.http.{name}"),
                    format!("{given} is not an HTTP status: give 100 to 599, or 0 for {default}"),
                );
                default
            }
        }
    };
    let status_min = status("status_min", status_min, 200);
    let status_max = status("status_max", status_max, 399);
    if status_min > status_max {
        violations.push(
            format!("{field}.http.status_max"),
            format!("{status_max} is less than status_min, {status_min}: swap them"),
        );
    }
    let host = host?;
    (violations.len() == before).then_some(Readiness::Http {
        path,
        status_min,
        status_max,
        host,
    })
}

/// Timings of the readiness probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeTimings {
    period: Duration,
    timeout: Duration,
    initial_delay: Duration,
}

impl Default for ProbeTimings {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
        }
    }
}

impl ProbeTimings {
    /// Validates the timings at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: ProbeTimingsInput,
        violations: &mut Violations,
    ) -> Option<Self> {
        const MINUTE: Duration = Duration::from_secs(60);
        let default = Self::default();
        let mut read = |name: &str, given, default, min, max| {
            violations.take(
                format!("{field}.{name}"),
                span_in_range(given, default, min, max),
            )
        };
        let ms = Duration::from_millis;
        let period = read("period", input.period, default.period, ms(1), MINUTE);
        let timeout = read("timeout", input.timeout, default.timeout, ms(10), MINUTE);
        let initial_delay = read(
            "initial_delay",
            input.initial_delay,
            default.initial_delay,
            Duration::ZERO,
            10 * MINUTE,
        );
        Some(Self {
            period: period?,
            timeout: timeout?,
            initial_delay: initial_delay?,
        })
    }

    /// Maximum pause between two probes.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Time after which a probe without an answer fails.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Time from the start of the container to the first probe.
    #[must_use]
    pub fn initial_delay(&self) -> Duration {
        self.initial_delay
    }
}
