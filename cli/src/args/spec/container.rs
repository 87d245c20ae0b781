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
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    cpu: Option<u32>,
    /// Memory limit: 512Mi or 1G [default: 512Mi]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Maximum processes and threads [default: 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Mount the root file system read-only, with a tmpfs of 64Mi at /tmp [default: false]
    #[arg(long, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Mount a tmpfs, which counts towards --memory; may be repeated [default: size=64Mi,noexec]
    #[arg(long, value_name = "PATH[:size=SIZE,exec]")]
    tmpfs: Vec<TmpfsArg>,
    /// User and group: 1000, app, 1000:1000 or app:staff [default: the image's]
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Signal that requests a stop: SIGTERM, INT or 15 [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    stop_grace: Option<Duration>,
}

impl ContainerArgs {
    /// Writes the flags given into a specification; an empty text is the image's own value.
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
                    hint: Some(format!(
                        "omit --{flag} to keep the present or default value"
                    )),
                });
            }
        }
        fn set<T: Clone>(field: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        set(&mut spec.cpu_millis, &self.cpu);
        set(&mut spec.memory_bytes, &self.memory);
        set(&mut spec.pids_limit, &self.pids);
        set(&mut spec.read_only_root, &self.read_only);
        set(&mut spec.user, &self.user);
        set(&mut spec.stop_signal, &self.stop_signal);
        for mount in &self.tmpfs {
            spec.tmpfs.insert(mount.path.clone(), mount.size);
            spec.tmpfs_exec.retain(|path| *path != mount.path);
            if mount.exec {
                spec.tmpfs_exec.push(mount.path.clone());
            }
        }
        // In the order of the control plane.
        spec.tmpfs_exec.sort_unstable();
        if let Some(grace) = self.stop_grace {
            spec.stop_grace = grace.try_into().ok();
        }
        Ok(())
    }
}
