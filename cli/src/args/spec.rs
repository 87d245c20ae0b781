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
use crate::parse::{self, EnvChange};
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
    #[arg(long, value_name = "REF")]
    pub(crate) image: Option<String>,
    /// Port the container listens on, also passed as PORT [default: the image's single EXPOSE, 8080
    /// without any]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Set an environment variable, pass that of this shell with NAME, or remove it with NAME-; may be
    /// repeated
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse::env_change)]
    env: Vec<EnvChange>,
    /// File of NAME=VALUE lines as Docker reads it, or - for standard input; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Override the image's ENTRYPOINT, one word per flag; may be repeated. One empty word: the image's
    #[arg(long, value_name = "WORD")]
    #[arg(allow_hyphen_values = true)]
    command: Vec<String>,
    /// Override the image's CMD, one word per flag; may be repeated. One empty word: the image's
    #[arg(long, value_name = "WORD")]
    #[arg(allow_hyphen_values = true)]
    arg: Vec<String>,
    /// When to pull the image [default: missing]
    #[arg(long, value_enum)]
    pull: Option<PullArg>,
    /// Protocol between proxy and container, whatever the client speaks [default: auto]
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    options: OptionArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

impl SpecArgs {
    /// Writes the flags given into `spec`; reads the file of `--env-file`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid file or flags that conflict.
    pub(crate) fn apply(&self, mut spec: pb::VersionSpec) -> Result<pb::VersionSpec, Error> {
        for path in &self.env_file {
            spec.env.extend(env_file::read(path)?);
        }
        for change in &self.env {
            match change {
                EnvChange::Set(name, value) => {
                    spec.env.insert(name.clone(), value.clone());
                }
                EnvChange::Inherit(name) => {
                    let value = std::env::var(name).ok();
                    spec.env.extend(value.map(|value| (name.clone(), value)));
                }
                EnvChange::Remove(name) => {
                    spec.env.remove(name);
                }
            }
        }
        if let Some(image) = &self.image {
            spec.image.clone_from(image);
        }
        if let Some(port) = self.port {
            spec.port = port.into();
        }
        for (field, words) in [
            (&mut spec.command, &self.command),
            (&mut spec.args, &self.arg),
        ] {
            match words.as_slice() {
                [] => {}
                [word] if word.is_empty() => field.clear(),
                words => *field = words.to_vec(),
            }
        }
        if let Some(pull) = self.pull {
            spec.pull_policy = match pull {
                PullArg::Missing => PullPolicy::Missing,
                PullArg::Always => PullPolicy::Always,
                PullArg::Never => PullPolicy::Never,
            }
            .into();
        }
        if let Some(protocol) = self.protocol {
            spec.protocol = match protocol {
                ProtocolArg::Auto => Protocol::Auto,
                ProtocolArg::Http1 => Protocol::Http1,
                ProtocolArg::H2c => Protocol::H2c,
            }
            .into();
        }
        self.probe.apply(&mut spec)?;
        self.container.apply(&mut spec)?;
        self.options.apply(&mut spec);
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn apply(base: &pb::VersionSpec, flags: &[&str]) -> pb::VersionSpec {
        let words = std::iter::once(&"cless").chain(flags);
        let flags = <Flags as clap::Parser>::parse_from(words);
        flags.spec.apply(base.clone()).expect("valid flags")
    }

    #[test]
    fn a_name_alone_passes_the_variable_that_is_set() {
        let spec = apply(
            &pb::VersionSpec::default(),
            &["-eKEPT=1", "-ePATH", "-eKEPT", "-eNOT_SET_ANYWHERE"],
        );
        let path = std::env::var("PATH").expect("tests have a PATH");
        let env = [
            ("KEPT".to_owned(), "1".to_owned()),
            ("PATH".to_owned(), path),
        ];
        assert_eq!(spec.env, env.into());
    }

    #[test]
    fn a_specification_keeps_all_that_no_flag_names() {
        let full = apply(
            &pb::VersionSpec::default(),
            &[
                "--image=hello:1",
                "--port=80",
                "-eA=1",
                "-eB=2",
                "--command=run",
                "--arg=-v",
                "--pull=always",
                "--protocol=h2c",
                "--cpu=2",
                "--memory=1Gi",
                "--pids=99",
                "--read-only",
                "--tmpfs=/a:1Mi",
                "--user=app",
                "--stop-signal=INT",
                "--stop-grace=3s",
                "--health-path=/ok",
                "--health-status=204",
                "--health-delay=2s",
                "--health-host=shop.example.org",
                "--tmpfs=/x:exec",
                "--no-init",
                "--cap-add=NET_RAW,FOWNER",
                "--shm-size=1Mi",
                "--ulimit=core=0",
                "--ulimit=nofile=1024",
                "--add-host=db:10.0.0.5",
                "--dns=10.0.0.53",
                "--egress=db:5432",
            ],
        );
        assert_eq!(apply(&full, &[]), full);
        let changed = apply(
            &full,
            &[
                "-eC=3",
                "-eA-",
                "--read-only=false",
                "--command=",
                "--health-path=/",
                "--tmpfs=/x",
                "--no-init=false",
                "--cap-add=",
                "--ulimit=nofile=2048:4096",
                "--add-host=cache:10.0.0.6",
                "--dns=",
                "--egress=",
            ],
        );
        assert!(!changed.no_init && changed.tmpfs_exec.is_empty());
        assert!(changed.cap_add.is_empty() && changed.dns.is_empty() && changed.egress.is_empty());
        let limits = changed.ulimits.iter();
        let limits: Vec<_> = limits.map(|one| (&*one.name, one.soft, one.hard)).collect();
        assert_eq!(limits, [("core", 0, 0), ("nofile", 2048, 4096)]);
        assert!(changed.extra_hosts.keys().eq(["cache", "db"]));
        let env = [("B", "2"), ("C", "3")];
        assert!(
            changed.env.iter().eq(env
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .iter()
                .map(|(k, v)| (k, v)))
        );
        assert!(!changed.read_only_root && changed.command.is_empty());
        let probe = changed.readiness.clone().expect("a probe");
        assert_eq!(
            probe.initial_delay,
            full.readiness.clone().and_then(|p| p.initial_delay)
        );
        let back = pb::VersionSpec {
            env: full.env.clone(),
            command: full.command.clone(),
            read_only_root: true,
            readiness: full.readiness.clone(),
            tmpfs_exec: full.tmpfs_exec.clone(),
            no_init: true,
            cap_add: full.cap_add.clone(),
            ulimits: full.ulimits.clone(),
            extra_hosts: full.extra_hosts.clone(),
            dns: full.dns.clone(),
            egress: full.egress.clone(),
            ..changed
        };
        assert_eq!(back, full);
    }
}
