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
    #[arg(long, env = "CLESS_HEALTH_PATH", value_name = "PATH")]
    #[arg(conflicts_with_all = ["health_grpc", "health_check"])]
    health_path: Option<String>,
    /// Status range that counts as ready for --health-path [default: 200-399]
    #[arg(long, env = "CLESS_HEALTH_STATUS", value_name = "RANGE", value_parser = parse::status_range)]
    health_status: Option<(u32, u32)>,
    /// Host header for --health-path [default: the default host of the service]
    #[arg(long, env = "CLESS_HEALTH_HOST", value_name = "HOST")]
    health_host: Option<String>,
    /// Probe grpc.health.v1.Health for this service [default: the whole server]
    #[arg(long, env = "CLESS_HEALTH_GRPC", value_name = "SERVICE")]
    #[arg(num_args = 0..=1, default_missing_value = "", conflicts_with = "health_check")]
    health_grpc: Option<String>,
    /// Use the HEALTHCHECK of the image
    #[arg(long, env = "CLESS_HEALTH_CHECK", value_parser = clap::builder::FalseyValueParser::new())]
    #[arg(action = clap::ArgAction::SetTrue)]
    health_check: bool,
    /// Maximum interval between probes, which grows from 1ms [default: 50ms]
    #[arg(long, env = "CLESS_HEALTH_INTERVAL", value_name = "DURATION", value_parser = parse::duration)]
    health_interval: Option<Duration>,
    /// Timeout of one probe [default: 1s, or that of the HEALTHCHECK]
    #[arg(long, env = "CLESS_HEALTH_TIMEOUT", value_name = "DURATION", value_parser = parse::duration)]
    health_timeout: Option<Duration>,
    /// Delay between container start and first probe [default: 0s]
    #[arg(long, env = "CLESS_HEALTH_DELAY", value_name = "DURATION", value_parser = parse::duration)]
    health_delay: Option<Duration>,
}

impl ProbeArgs {
    /// `None` if no flag is given.
    ///
    /// # Errors
    /// [`Error::Usage`] for `--health-status` or `--health-host` without `--health-path`.
    pub(super) fn to_proto(&self) -> Result<Option<pb::ReadinessProbe>, Error> {
        let needs_path = [
            ("health-status", self.health_status.is_some()),
            ("health-host", self.health_host.is_some()),
        ];
        if let Some((flag, _)) = needs_path.into_iter().find(|(_, given)| *given)
            && self.health_path.is_none()
        {
            return Err(Error::Usage {
                message: format!("--{flag}: requires --health-path"),
                hint: Some("add --health-path /healthz, or the path of your app".to_owned()),
            });
        }
        let kind = if let Some(path) = &self.health_path {
            let (status_min, status_max) = self.health_status.unwrap_or_default();
            Some(Kind::Http(pb::HttpProbe {
                path: path.clone(),
                status_min,
                status_max,
                host: self.health_host.clone().unwrap_or_default(),
            }))
        } else if let Some(service) = &self.health_grpc {
            Some(Kind::Grpc(pb::GrpcProbe {
                service: service.clone(),
            }))
        } else {
            self.health_check
                .then_some(Kind::Healthcheck(pb::HealthcheckProbe {}))
        };
        let timings = [self.health_interval, self.health_timeout, self.health_delay];
        if kind.is_none() && timings == [None; 3] {
            return Ok(None);
        }
        let [period, timeout, initial_delay] =
            timings.map(|time| time.and_then(|time| time.try_into().ok()));
        Ok(Some(pb::ReadinessProbe {
            kind: Some(kind.unwrap_or(Kind::Tcp(pb::TcpProbe {}))),
            period,
            timeout,
            initial_delay,
        }))
    }
}
