//! What the containers of a version run: `cless.v1.VersionSpec`, checked and completed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Reason, Violations};
use super::image::ImageRef;

/// Environment, command and arguments together: they travel in every route, and a route has a limit.
pub const TEXT_MAX: usize = 16 * 1024;
/// Set by cless in every container.
const RESERVED_ENV: [&str; 3] = ["PORT", "CLESS_SERVICE", "CLESS_VERSION"];
const CPU_MILLIS_DEFAULT: u32 = 1000;
const MIB: u64 = 1 << 20;
const MEMORY_DEFAULT: u64 = 512 * MIB;
/// The engine refuses less than 6 MiB.
const MEMORY_MIN: u64 = 6 * MIB;
const MEMORY_MAX: u64 = 1 << 40;
/// Far beyond any real health path, and short in a log line.
const PATH_MAX: usize = 1024;

/// When the image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Only if the node does not have it.
    #[default]
    Missing,
    /// Before every first start of the version on a node.
    Always,
    /// Never; a missing image is an error.
    Never,
}

/// How containers are spoken to, whatever a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1, but gRPC goes over HTTP/2.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    H2c,
}

/// How a started container is found ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Readiness {
    /// The port accepts a connection.
    #[default]
    Tcp,
    /// A GET of `path` answers with a status from `status_min` to `status_max`.
    Http {
        /// Starts with `/`.
        path: String,
        /// 100 to 599.
        status_min: u16,
        /// 100 to 599, not under `status_min`.
        status_max: u16,
    },
}

/// [`Readiness`] as a request carries it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadinessInput {
    /// Given as TCP, or not at all.
    #[default]
    Tcp,
    /// Given as HTTP; 0 stands for a default.
    #[expect(
        missing_docs,
        reason = "the fields of cless.v1.HttpProbe, documented there"
    )]
    Http {
        path: String,
        status_min: u32,
        status_max: u32,
    },
}

/// A specification as a request carries it: nothing is checked, zeros stand for defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the fields of cless.v1.VersionSpec, documented there"
)]
pub struct VersionSpecInput {
    pub image: String,
    pub port: u32,
    pub env: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    pub readiness: ReadinessInput,
    pub pull_policy: PullPolicy,
    pub protocol: Protocol,
}

/// Checked and complete, but for the port, which the image may decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSpec {
    image: ImageRef,
    port: Option<u16>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    cpu_millis: u32,
    memory_bytes: u64,
    #[serde(default)]
    readiness: Readiness,
    #[serde(default)]
    pull_policy: PullPolicy,
    #[serde(default)]
    protocol: Protocol,
}

impl VersionSpec {
    /// Reads the specification at `field` (`version.spec`); what is refused is noted in `violations`.
    pub fn new(field: &str, input: VersionSpecInput, violations: &mut Violations) -> Option<Self> {
        let image = violations.take(format!("{field}.image"), ImageRef::parse(input.image));
        let port = violations.take(format!("{field}.port"), read_port(input.port));
        let cpu_millis = violations.take(
            format!("{field}.cpu_millis"),
            in_range(input.cpu_millis, CPU_MILLIS_DEFAULT, 10, 64_000),
        );
        let memory_bytes = violations.take(
            format!("{field}.memory_bytes"),
            in_range(input.memory_bytes, MEMORY_DEFAULT, MEMORY_MIN, MEMORY_MAX),
        );
        let readiness = read_readiness(&format!("{field}.readiness"), input.readiness, violations);
        let before = violations.len();
        for (name, value) in &input.env {
            let shown: String = name.chars().take(80).collect();
            violations.take(
                format!("{field}.env[{}]", shown.escape_debug()),
                check_env(name, value),
            );
        }
        for (list, words) in [("command", &input.command), ("args", &input.args)] {
            for (at, word) in words.iter().enumerate() {
                if word.contains('\0') {
                    violations.push(
                        format!("{field}.{list}[{at}]"),
                        "holds a NUL, which no process can be given: leave it out",
                    );
                }
            }
        }
        let size: usize = input
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .chain(input.command.iter().map(String::len))
            .chain(input.args.iter().map(String::len))
            .sum();
        if size > TEXT_MAX {
            violations.push(
                field,
                format!(
                    "env, command and args hold {size} bytes together, at most {TEXT_MAX} are taken: put the rest into the image"
                ),
            );
        }
        let texts_good = violations.len() == before;
        Some(Self {
            image: image?,
            port: port?,
            cpu_millis: cpu_millis?,
            memory_bytes: memory_bytes?,
            readiness: readiness?,
            env: texts_good.then_some(input.env)?,
            command: input.command,
            args: input.args,
            pull_policy: input.pull_policy,
            protocol: input.protocol,
        })
    }

    /// The image as the user named it.
    #[must_use]
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// The port the container listens on; `None`: the image decides.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The environment, less what cless sets.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Replaces the image's entry point if not empty.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Replaces the image's command if not empty.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Thousandths of a core.
    #[must_use]
    pub fn cpu_millis(&self) -> u32 {
        self.cpu_millis
    }

    /// The memory limit.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How a started container is found ready.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// When the image is pulled.
    #[must_use]
    pub fn pull_policy(&self) -> PullPolicy {
        self.pull_policy
    }

    /// How its containers are spoken to.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

fn read_port(port: u32) -> Result<Option<u16>, Reason> {
    match u16::try_from(port) {
        Ok(0) => Ok(None),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(Reason::new(format!(
            "{port} is not a port: give 1 to 65535, or 0 to take the image's"
        ))),
    }
}

fn in_range<T: Copy + PartialOrd + Default + std::fmt::Display>(
    given: T,
    default: T,
    min: T,
    max: T,
) -> Result<T, Reason> {
    if given == T::default() {
        return Ok(default);
    }
    if given < min || given > max {
        return Err(Reason::new(format!(
            "{given} is out of range: give {min} to {max}, or 0 for the default of {default}"
        )));
    }
    Ok(given)
}

fn check_env(name: &str, value: &str) -> Result<(), Reason> {
    let mut bytes = name.bytes();
    let good = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !good {
        return Err(Reason::new(
            "is not the name of an environment variable: use letters, digits and `_`, not starting with a digit",
        ));
    }
    if RESERVED_ENV.contains(&name) {
        return Err(Reason::new(if name == "PORT" {
            "is set by cless: leave it out, and set `port` instead"
        } else {
            "is set by cless: leave it out"
        }));
    }
    if value.contains('\0') {
        return Err(Reason::new(
            "its value holds a NUL, which no process can be given: leave it out",
        ));
    }
    Ok(())
}

fn read_readiness(
    field: &str,
    input: ReadinessInput,
    violations: &mut Violations,
) -> Option<Readiness> {
    let ReadinessInput::Http {
        path,
        status_min,
        status_max,
    } = input
    else {
        return Some(Readiness::Tcp);
    };
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
            format!("{status_max} is under status_min, {status_min}: swap them"),
        );
    }
    (violations.len() == before).then_some(Readiness::Http {
        path,
        status_min,
        status_max,
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::Error;
    use super::*;

    fn read(input: VersionSpecInput) -> Result<VersionSpec, Error> {
        let mut violations = Violations::new();
        let read = VersionSpec::new("version.spec", input, &mut violations);
        violations.finish()?;
        Ok(read.expect("neither a specification nor violations"))
    }

    fn hello() -> VersionSpecInput {
        VersionSpecInput {
            image: "hello:1".to_owned(),
            ..VersionSpecInput::default()
        }
    }

    #[test]
    fn an_image_alone_takes_the_defaults() {
        let spec = read(hello()).unwrap();
        assert_eq!(spec.port(), None);
        assert_eq!(spec.cpu_millis(), 1000);
        assert_eq!(spec.memory_bytes(), 512 * MIB);
        assert_eq!(spec.readiness(), &Readiness::Tcp);
        assert_eq!(spec.pull_policy(), PullPolicy::Missing);
        assert_eq!(spec.protocol(), Protocol::Auto);
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let env = [("PORT", "1"), ("1A", ""), ("B", "\0"), ("GOOD", "ü=1")];
        let error = read(VersionSpecInput {
            image: "Hello".to_owned(),
            port: 65_536,
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            command: vec!["a\0b".to_owned()],
            args: vec![String::new(), "\0".to_owned()],
            cpu_millis: 9,
            memory_bytes: MEMORY_MIN - 1,
            readiness: ReadinessInput::Http {
                path: "health".to_owned(),
                status_min: 600,
                status_max: 99,
            },
            pull_policy: PullPolicy::Never,
            protocol: Protocol::H2c,
        })
        .unwrap_err();
        let mut fields: Vec<_> = error
            .violations()
            .iter()
            .map(|v| v.field.as_str())
            .collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "version.spec.args[1]",
                "version.spec.command[0]",
                "version.spec.cpu_millis",
                "version.spec.env[1A]",
                "version.spec.env[B]",
                "version.spec.env[PORT]",
                "version.spec.image",
                "version.spec.memory_bytes",
                "version.spec.port",
                "version.spec.readiness.http.path",
                "version.spec.readiness.http.status_max",
                "version.spec.readiness.http.status_min",
            ]
        );
    }

    #[test]
    fn a_probe_has_a_range_the_right_way_round() {
        let with = |status_min, status_max| {
            read(VersionSpecInput {
                readiness: ReadinessInput::Http {
                    path: "/up".to_owned(),
                    status_min,
                    status_max,
                },
                ..hello()
            })
        };
        assert!(with(0, 0).is_ok());
        assert!(with(204, 204).is_ok());
        assert!(with(400, 0).is_err());
    }

    #[test]
    fn texts_are_capped_together() {
        let half = "x".repeat(TEXT_MAX / 2);
        let with = |args: Vec<String>| {
            read(VersionSpecInput {
                env: BTreeMap::from([("A".to_owned(), half[1..].to_owned())]),
                args,
                ..hello()
            })
        };
        assert!(with(vec![half.clone()]).is_ok());
        assert!(with(vec![half.clone(), "x".to_owned()]).is_err());
    }
}
