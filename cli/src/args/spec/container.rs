//! The flags of what a container may use, where it may write, who it is and how it ends.

use std::time::Duration;

use clap::Args;
use cless_proto::v1 as pb;

use crate::error::Error;
use crate::parse;

/// What a container may use and how it ends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ContainerArgs {
    /// Cores: 0.5, 2, 500m [default: 1]
    #[arg(long, env = "CLESS_CPU", value_name = "CORES", value_parser = parse::cores)]
    cpu: Option<u32>,
    /// Memory: 512Mi, 1G [default: 512Mi]
    #[arg(long, env = "CLESS_MEMORY", value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Most processes and threads at once [default: 512]
    #[arg(long, env = "CLESS_PIDS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Let nothing be written but to --tmpfs; brings one of 64Mi at /tmp
    #[arg(long, env = "CLESS_READ_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    #[arg(action = clap::ArgAction::SetTrue)]
    read_only: bool,
    /// A file system in memory, which counts to --memory; may be repeated [default size: 64Mi]
    #[arg(long, env = "CLESS_TMPFS", value_name = "PATH[:SIZE]", value_parser = parse::mount)]
    tmpfs: Vec<(String, u64)>,
    /// Run as this user: 1000, app, 1000:1000, app:staff [default: the image's]
    #[arg(long, env = "CLESS_USER", value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// What asks it to end: SIGTERM, INT, 15 [default: the image's, else SIGTERM]
    #[arg(long, env = "CLESS_STOP_SIGNAL", value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// From that signal to the end by force [default: 10s]
    #[arg(long, env = "CLESS_STOP_GRACE", value_name = "DURATION", value_parser = parse::duration)]
    stop_grace: Option<Duration>,
}

impl ContainerArgs {
    /// Puts them into a specification.
    ///
    /// # Errors
    /// [`Error::Usage`] for a limit of nothing.
    pub(super) fn apply(&self, spec: &mut pb::VersionSpec) -> Result<(), Error> {
        // 0 on the wire means the default: not what was typed.
        for (flag, zero) in [
            ("cpu", self.cpu == Some(0)),
            ("memory", self.memory == Some(0)),
        ] {
            if zero {
                return Err(Error::Usage {
                    message: format!("--{flag}: 0 is too little to run anything"),
                    hint: Some(format!("leave --{flag} out to take the default")),
                });
            }
        }
        spec.cpu_millis = self.cpu.unwrap_or(0);
        spec.memory_bytes = self.memory.unwrap_or(0);
        spec.pids_limit = self.pids.unwrap_or(0);
        spec.read_only_root = self.read_only;
        spec.tmpfs = self.tmpfs.iter().cloned().collect();
        spec.user = self.user.clone().unwrap_or_default();
        spec.stop_signal = self.stop_signal.clone().unwrap_or_default();
        spec.stop_grace = self.stop_grace.and_then(|grace| grace.try_into().ok());
        Ok(())
    }
}
