//! The flags of a version: its image and its run configuration.

mod container;
mod probe;

use std::path::PathBuf;

use clap::Args;
use cless_proto::v1 as pb;
use pb::version_spec::{Protocol, PullPolicy};

use crate::error::Error;
use crate::parse;
use container::ContainerArgs;
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
    /// Port the container listens on, also passed as PORT [default: the image's EXPOSE, else 8080]
    #[arg(long, env = "CLESS_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Environment variable; may be repeated
    #[arg(long, short, env = "CLESS_ENV", value_name = "NAME=VALUE", value_parser = parse::env)]
    #[arg(hide_env_values = true)]
    env: Vec<(String, String)>,
    /// File of NAME=VALUE lines; blank lines and lines starting with # are ignored
    #[arg(long, env = "CLESS_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,
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
    probe: ProbeArgs,
}

impl SpecArgs {
    /// Converts the flags; reads the file of `--env-file`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid file or flags that conflict.
    pub(crate) fn to_proto(&self) -> Result<pb::VersionSpec, Error> {
        let mut env = std::collections::BTreeMap::new();
        if let Some(path) = &self.env_file {
            let shown = path.display();
            let text = std::fs::read_to_string(path).map_err(|error| Error::Usage {
                message: format!("--env-file: {shown}: {error}"),
                hint: None,
            })?;
            env.extend(env_lines(&text).map_err(|(line, error)| Error::Usage {
                message: format!("--env-file: {shown}:{line}: {error}"),
                hint: None,
            })?);
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
        Ok(spec)
    }
}

/// Parses an env file; an error carries the line number, from 1.
fn env_lines(text: &str) -> Result<Vec<(String, String)>, (usize, parse::Error)> {
    let lines = (1..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| parse::env(line).map_err(|error| (number, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_skips_comments_and_reports_the_invalid_line() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            env_lines("# x\n\nA=1\nB=a b = c\n"),
            Ok(vec![pair("A", "1"), pair("B", "a b = c")])
        );
        assert_eq!(env_lines("A=1\noops\n").map_err(|(line, _)| line), Err(2));
    }
}
