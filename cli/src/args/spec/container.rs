//! The flags of a container: resource limits, file systems, user and shutdown.

use std::time::Duration;

use clap::Args;
use cless_proto::v1 as pb;

use crate::error::Error;
use crate::parse::{self, TmpfsArg};

/// Limits and runtime options of a container.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Container options")]
pub(crate) struct ContainerArgs {
    /// CPU cores: 0.5, 2 or 500m [default: 1]
    #[arg(long, env = "CLESS_CPU", value_name = "CORES", value_parser = parse::cores)]
    cpu: Option<u32>,
    /// Memory limit: 512Mi or 1G [default: 512Mi]
    #[arg(long, env = "CLESS_MEMORY", value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Maximum processes and threads [default: 512]
    #[arg(long, env = "CLESS_PIDS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Mount the root file system read-only, with a tmpfs of 64Mi at /tmp
    #[arg(long, env = "CLESS_READ_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    #[arg(action = clap::ArgAction::SetTrue)]
    read_only: bool,
    /// Mount a tmpfs, which counts towards --memory; may be repeated [default: size=64Mi,noexec]
    #[arg(long, env = "CLESS_TMPFS", value_name = "PATH[:size=SIZE,exec]")]
    tmpfs: Vec<TmpfsArg>,
    /// User and group: 1000, app, 1000:1000 or app:staff [default: the image's]
    #[arg(long, env = "CLESS_USER", value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Signal that requests a stop: SIGTERM, INT or 15 [default: the image's, else SIGTERM]
    #[arg(long, env = "CLESS_STOP_SIGNAL", value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL [default: 10s]
    #[arg(long, env = "CLESS_STOP_GRACE", value_name = "DURATION", value_parser = parse::duration)]
    stop_grace: Option<Duration>,
}

impl ContainerArgs {
    /// Writes the flags into a specification.
    ///
    /// # Errors
    /// [`Error::Usage`] for a limit of 0.
    pub(super) fn apply(&self, spec: &mut pb::VersionSpec) -> Result<(), Error> {
        // In the API 0 means the default.
        for (flag, zero) in [
            ("cpu", self.cpu == Some(0)),
            ("memory", self.memory == Some(0)),
        ] {
            if zero {
                return Err(Error::Usage {
                    message: format!("--{flag}: must be greater than 0"),
                    hint: Some(format!("omit --{flag} to use the default")),
                });
            }
        }
        spec.cpu_millis = self.cpu.unwrap_or(0);
        spec.memory_bytes = self.memory.unwrap_or(0);
        spec.pids_limit = self.pids.unwrap_or(0);
        spec.read_only_root = self.read_only;
        let mounts = self.tmpfs.iter();
        spec.tmpfs = mounts
            .clone()
            .map(|one| (one.path.clone(), one.size))
            .collect();
        spec.tmpfs_exec = mounts
            .filter(|one| one.exec)
            .map(|one| one.path.clone())
            .collect();
        spec.user = self.user.clone().unwrap_or_default();
        spec.stop_signal = self.stop_signal.clone().unwrap_or_default();
        spec.stop_grace = self.stop_grace.and_then(|grace| grace.try_into().ok());
        Ok(())
    }
}
