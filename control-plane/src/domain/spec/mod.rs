//! The validated specification of a version's containers: `cless.v1.VersionSpec`.
//!
//! Invariants: every value is valid for an engine. A stored specification without a newer field
//! reads as if the field was absent in the request. A newer field with its default value is not
//! stored.

mod confinement;
mod input;
mod readiness;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Reason, Violations};
use super::image::ImageRef;

pub use confinement::{Tmpfs, User};
pub use input::{ProbeTimingsInput, ReadinessInput, VersionSpecInput};
pub use readiness::{ProbeTimings, Readiness};
pub use stop::StopSignal;

/// Maximum size of environment, command and arguments together, in bytes: routes contain them, and
/// have a size limit.
pub const TEXT_MAX: usize = 16 * 1024;
/// Variables that cless sets in every container.
const RESERVED_ENV: [&str; 3] = ["PORT", "CLESS_SERVICE", "CLESS_VERSION"];
const CPU_MILLIS_DEFAULT: u32 = 1000;
const MIB: u64 = 1 << 20;
const MEMORY_DEFAULT: u64 = 512 * MIB;
/// The engine refuses less.
const MEMORY_MIN: u64 = 6 * MIB;
const MEMORY_MAX: u64 = 1 << 40;
/// Default maximum number of processes and threads.
pub const PIDS_DEFAULT: u32 = 512;
/// Runtimes with their own threads do not start with less.
const PIDS_MIN: u32 = 16;
/// The kernel's default for a whole machine.
const PIDS_MAX: u32 = 32_768;
/// Default time from the stop signal to the kill, as in `docker stop`.
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// A stopping node waits for the longest.
const STOP_GRACE_MAX: Duration = Duration::from_secs(300);

/// When the image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// If the node does not have it.
    #[default]
    Missing,
    /// Before the first start of the version on a node.
    Always,
    /// Never; a missing image is an error.
    Never,
}

/// The protocol between proxy and container, independent of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 for gRPC.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    H2c,
}

/// A valid specification. Only the port may be missing, which the image then decides.
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
    #[serde(default, skip_serializing_if = "is_default")]
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "is_default")]
    probe: ProbeTimings,
    #[serde(default, skip_serializing_if = "is_default")]
    pids_limit: PidsLimit,
    #[serde(default, skip_serializing_if = "is_default")]
    read_only_root: bool,
    #[serde(default, skip_serializing_if = "Tmpfs::is_empty")]
    tmpfs: Tmpfs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_signal: Option<StopSignal>,
    #[serde(default, skip_serializing_if = "is_default")]
    stop_grace: StopGrace,
}

/// A limit with a default other than zero, so that storage may omit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct PidsLimit(u32);

impl Default for PidsLimit {
    fn default() -> Self {
        Self(PIDS_DEFAULT)
    }
}

/// A grace period, with a default as [`PidsLimit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct StopGrace(Duration);

impl Default for StopGrace {
    fn default() -> Self {
        Self(STOP_GRACE_DEFAULT)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl VersionSpec {
    /// Validates the specification at `field` (`version.spec`); adds refusals to `violations`.
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
        let readiness = Readiness::new(&format!("{field}.readiness"), input.readiness, violations);
        let probe = ProbeTimings::new(&format!("{field}.readiness"), input.probe, violations);
        let pids_limit = violations.take(
            format!("{field}.pids_limit"),
            in_range(input.pids_limit, PIDS_DEFAULT, PIDS_MIN, PIDS_MAX),
        );
        let tmpfs = Tmpfs::new(
            &format!("{field}.tmpfs"),
            input.tmpfs,
            // A refused memory limit must not refuse mounts too.
            memory_bytes.unwrap_or(MEMORY_MAX),
            input.read_only_root,
            violations,
        );
        let user = violations.take(format!("{field}.user"), User::parse(input.user));
        let stop_signal = violations.take(
            format!("{field}.stop_signal"),
            StopSignal::parse(&input.stop_signal),
        );
        let stop_grace = violations.take(
            format!("{field}.stop_grace"),
            span_in_range(
                input.stop_grace,
                STOP_GRACE_DEFAULT,
                Duration::ZERO,
                STOP_GRACE_MAX,
            ),
        );
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
                        "contains a NUL byte, which no process can receive: remove it",
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
                    "env, command and args have {size} bytes together, at most {TEXT_MAX} are allowed: put the rest into the image"
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
            probe: probe?,
            pids_limit: PidsLimit(pids_limit?),
            read_only_root: input.read_only_root,
            tmpfs: tmpfs?,
            user: user?,
            stop_signal: stop_signal?,
            stop_grace: StopGrace(stop_grace?),
        })
    }

    /// The image, as the user named it.
    #[must_use]
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// The port that the container listens on; `None`: the image decides.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The environment, without the variables that cless sets.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Replaces the image's entry point unless empty.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Replaces the image's command unless empty.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// CPU limit in thousandths of a core.
    #[must_use]
    pub fn cpu_millis(&self) -> u32 {
        self.cpu_millis
    }

    /// Memory limit in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The readiness probe.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The timings of the probe.
    #[must_use]
    pub fn probe(&self) -> &ProbeTimings {
        &self.probe
    }

    /// When the image is pulled.
    #[must_use]
    pub fn pull_policy(&self) -> PullPolicy {
        self.pull_policy
    }

    /// The protocol between proxy and container.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Maximum number of processes and threads.
    #[must_use]
    pub fn pids_limit(&self) -> u32 {
        self.pids_limit.0
    }

    /// Whether the image's file system is read-only.
    #[must_use]
    pub fn read_only_root(&self) -> bool {
        self.read_only_root
    }

    /// In-memory file systems.
    #[must_use]
    pub fn tmpfs(&self) -> &Tmpfs {
        &self.tmpfs
    }

    /// The user of the process; `None`: as in the image.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The stop signal; `None`: as in the image.
    #[must_use]
    pub fn stop_signal(&self) -> Option<&StopSignal> {
        self.stop_signal.as_ref()
    }

    /// Time from the stop signal to the kill.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace.0
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

/// Checks a duration against its range; `None` gives the default.
fn span_in_range(
    given: Option<Duration>,
    default: Duration,
    min: Duration,
    max: Duration,
) -> Result<Duration, Reason> {
    let given = given.unwrap_or(default);
    if given < min || given > max {
        return Err(Reason::new(format!(
            "{given:?} is out of range: give {min:?} to {max:?}, or leave it out for the default of {default:?}"
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
            "its value contains a NUL byte, which no process can receive: remove it",
        ));
    }
    Ok(())
}
