//! The flags of a version: its image and its run configuration.

mod container;
mod env_file;
mod options;
mod probe;

use std::path::PathBuf;

use clap::Args;
use cless_proto::v1 as pb;
use pb::version_spec::{Protocol, PullPolicy};

use crate::error::Error;
use crate::parse;
use container::ContainerArgs;
use options::OptionArgs;
use probe::ProbeArgs;

/// The values of `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullArg {
    /// Pull if the image is missing on the node.
    Missing,
    /// Pull before the first start on each node.
    Always,
    /// Never pull; a missing image is an error.
    Never,
}

/// The values of `--protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProtocolArg {
    /// HTTP/1.1; HTTP/2 for gRPC.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 without TLS for all requests.
    H2c,
}

/// The specification of a version.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Version options")]
pub(crate) struct SpecArgs {
    /// Image reference: hello:1 or registry.example/team/app@sha256:...
    #[arg(long, env = "CLESS_IMAGE", value_name = "REF")]
    pub(crate) image: String,
    /// Port the container listens on, also passed as PORT [default: the image's single EXPOSE, 8080
    /// without any]
    #[arg(long, env = "CLESS_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Environment variable; may be repeated
    #[arg(long, short, env = "CLESS_ENV", value_name = "NAME=VALUE", value_parser = parse::env)]
    #[arg(hide_env_values = true)]
    env: Vec<(String, String)>,
    /// File of NAME=VALUE lines as Docker reads it, or - for standard input; may be repeated
    #[arg(long, env = "CLESS_ENV_FILE", value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Override the image's ENTRYPOINT, one word per flag; may be repeated
    #[arg(long, env = "CLESS_COMMAND", value_name = "WORD")]
    #[arg(allow_hyphen_values = true)]
    command: Vec<String>,
    /// Override the image's CMD, one word per flag; may be repeated
    #[arg(long, env = "CLESS_ARG", value_name = "WORD")]
    #[arg(allow_hyphen_values = true)]
    arg: Vec<String>,
    /// When to pull the image [default: missing]
    #[arg(long, env = "CLESS_PULL", value_enum)]
    pull: Option<PullArg>,
    /// Protocol between proxy and container, whatever the client speaks [default: auto]
    #[arg(long, env = "CLESS_PROTOCOL", value_enum)]
    protocol: Option<ProtocolArg>,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    options: OptionArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

impl SpecArgs {
    /// Converts the flags; reads the file of `--env-file`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid file or flags that conflict.
    pub(crate) fn to_proto(&self) -> Result<pb::VersionSpec, Error> {
        let mut env = std::collections::BTreeMap::new();
        for path in &self.env_file {
            env.extend(env_file::read(path)?);
        }
        env.extend(self.env.iter().cloned());
        let pull_policy = match self.pull {
            None => PullPolicy::Unspecified,
            Some(PullArg::Missing) => PullPolicy::Missing,
            Some(PullArg::Always) => PullPolicy::Always,
            Some(PullArg::Never) => PullPolicy::Never,
        };
        let mut spec = pb::VersionSpec {
            image: self.image.clone(),
            port: self.port.map_or(0, u32::from),
            env,
            command: self.command.clone(),
            args: self.arg.clone(),
            readiness: self.probe.to_proto()?,
            pull_policy: pull_policy.into(),
            protocol: match self.protocol {
                None => Protocol::Unspecified,
                Some(ProtocolArg::Auto) => Protocol::Auto,
                Some(ProtocolArg::Http1) => Protocol::Http1,
                Some(ProtocolArg::H2c) => Protocol::H2c,
            }
            .into(),
            ..Default::default()
        };
        self.container.apply(&mut spec)?;
        self.options.apply(&mut spec);
        Ok(spec)
    }
}
