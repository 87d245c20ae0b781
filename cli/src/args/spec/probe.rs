//! The flags of the readiness probe.

use std::time::Duration;

use clap::Args;
use cless_proto::v1 as pb;
use pb::readiness_probe::Kind;

use crate::error::Error;
use crate::parse;

/// The readiness probe of a container.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Readiness options")]
pub(crate) struct ProbeArgs {
    /// Probe with GET requests to this path [default: TCP connects to the port]
    #[arg(long, value_name = "PATH")]
    #[arg(conflicts_with_all = ["health_grpc", "health_check"])]
    health_path: Option<String>,
    /// Status range that counts as ready for --health-path [default: 200-399]
    #[arg(long, value_name = "RANGE", value_parser = parse::status_range)]
    health_status: Option<(u32, u32)>,
    /// Host header for --health-path [default: the default host of the service]
    #[arg(long, value_name = "HOST")]
    health_host: Option<String>,
    /// Probe grpc.health.v1.Health for this service [default: the whole server]
    #[arg(long, value_name = "SERVICE")]
    #[arg(num_args = 0..=1, default_missing_value = "", conflicts_with = "health_check")]
    health_grpc: Option<String>,
    /// Use the HEALTHCHECK of the image
    #[arg(long)]
    health_check: bool,
    /// Maximum interval between probes, which grows from 1ms [default: 50ms]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    health_interval: Option<Duration>,
    /// Timeout of one probe [default: 1s, or that of the HEALTHCHECK]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    health_timeout: Option<Duration>,
    /// Delay between container start and first probe [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    health_delay: Option<Duration>,
}

impl ProbeArgs {
    /// Writes the flags given into a specification. A flag that selects a kind of probe replaces the
    /// present kind; the timings stay.
    ///
    /// # Errors
    /// [`Error::Usage`] for `--health-status` or `--health-host` without an HTTP probe.
    pub(super) fn apply(&self, spec: &mut pb::VersionSpec) -> Result<(), Error> {
        let mut probe = spec.readiness.clone().unwrap_or_default();
        if let Some(path) = &self.health_path {
            probe.kind = Some(Kind::Http(pb::HttpProbe {
                path: path.clone(),
                ..Default::default()
            }));
        } else if let Some(service) = &self.health_grpc {
            probe.kind = Some(Kind::Grpc(pb::GrpcProbe {
                service: service.clone(),
            }));
        } else if self.health_check {
            probe.kind = Some(Kind::Healthcheck(pb::HealthcheckProbe {}));
        }
        let of_http = [
            ("health-status", self.health_status.is_some()),
            ("health-host", self.health_host.is_some()),
        ];
        if let Some((flag, _)) = of_http.into_iter().find(|(_, given)| *given) {
            let Some(Kind::Http(http)) = &mut probe.kind else {
                return Err(Error::Usage {
                    message: format!("--{flag}: requires --health-path"),
                    hint: Some("add --health-path /healthz, or the path of your app".to_owned()),
                });
            };
            if let Some((low, high)) = self.health_status {
                (http.status_min, http.status_max) = (low, high);
            }
            if let Some(host) = &self.health_host {
                http.host.clone_from(host);
            }
        }
        for (field, given) in [
            (&mut probe.period, self.health_interval),
            (&mut probe.timeout, self.health_timeout),
            (&mut probe.initial_delay, self.health_delay),
        ] {
            if let Some(time) = given {
                *field = time.try_into().ok();
            }
        }
        if probe != pb::ReadinessProbe::default() {
            probe.kind.get_or_insert(Kind::Tcp(pb::TcpProbe {}));
            spec.readiness = Some(probe);
        }
        Ok(())
    }
}
