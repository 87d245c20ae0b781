//! The validated specification of a version's containers: `cless.v1.VersionSpec`.
//!
//! Invariants: every value is valid for an engine. A stored specification without a newer field
//! reads as if the field was absent in the request. A newer field with its default value is not
//! stored.

mod confinement;
mod input;
mod list;
mod network;
mod privileges;
mod readiness;
mod stop;
#[cfg(test)]
mod tests;
mod ulimit;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cless_proto::RESERVED_ENV;
use serde::{Deserialize, Serialize};

use super::error::{Reason, Violations};
use super::image::ImageRef;

pub use confinement::{Tmpfs, User};
pub use input::{ProbeTimingsInput, ReadinessInput, VersionSpecInput};
pub use network::{Dns, Egress, ExtraHosts};
pub use privileges::Capabilities;
pub use readiness::{ProbeTimings, Readiness};
pub use stop::StopSignal;
pub use ulimit::{Ulimit, Ulimits};

/// Maximum size of environment, command and arguments together, in bytes: routes contain them, and
/// have a size limit.
pub const TEXT_MAX: usize = 16 * 1024;
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
    #[serde(default, skip_serializing_if = "is_default")]
    no_init: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    cap_add: Capabilities,
    #[serde(default, skip_serializing_if = "is_default")]
    tmpfs_exec: BTreeSet<String>,
    /// 0: the engine's default.
    #[serde(default, skip_serializing_if = "is_default")]
    shm_bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    ulimits: Ulimits,
    #[serde(default, skip_serializing_if = "is_default")]
    extra_hosts: ExtraHosts,
    #[serde(default, skip_serializing_if = "is_default")]
    dns: Dns,
    #[serde(default, skip_serializing_if = "is_default")]
    egress: Egress,
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
        let tmpfs_exec = tmpfs.as_ref().and_then(|tmpfs| {
            tmpfs.executable(&format!("{field}.tmpfs_exec"), input.tmpfs_exec, violations)
        });
        let cap_add = Capabilities::new(&format!("{field}.cap_add"), input.cap_add, violations);
        let shm_bytes = violations.take(
            format!("{field}.shm_bytes"),
            confinement::read_shm(input.shm_bytes, memory_bytes.unwrap_or(MEMORY_MAX)),
        );
        let ulimits = Ulimits::new(&format!("{field}.ulimits"), input.ulimits, violations);
        let extra_hosts = ExtraHosts::new(
            &format!("{field}.extra_hosts"),
            input.extra_hosts,
            violations,
        );
        let dns = Dns::new(&format!("{field}.dns"), input.dns, violations);
        let egress = Egress::new(&format!("{field}.egress"), input.egress, violations);
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
            .sum::<usize>()
            + extra_hosts.as_ref().map_or(0, ExtraHosts::text_len);
        if size > TEXT_MAX {
            violations.push(
                field,
                format!(
                    "env, command, args and extra_hosts have {size} bytes together, at most {TEXT_MAX} are allowed: put the rest into the image"
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
            no_init: input.no_init,
            cap_add: cap_add?,
            tmpfs_exec: tmpfs_exec?,
            shm_bytes: shm_bytes?,
            ulimits: ulimits?,
            extra_hosts: extra_hosts?,
            dns: dns?,
            egress: egress?,
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

    /// Whether the process runs as PID 1, without an init.
    #[must_use]
    pub fn no_init(&self) -> bool {
        self.no_init
    }

    /// Capabilities beyond those of every container.
    #[must_use]
    pub fn cap_add(&self) -> &Capabilities {
        &self.cap_add
    }

    /// Mount points of [`Self::tmpfs`] from which programs can be run.
    #[must_use]
    pub fn tmpfs_exec(&self) -> &BTreeSet<String> {
        &self.tmpfs_exec
    }

    /// Size of `/dev/shm` in bytes; 0: the engine's default.
    #[must_use]
    pub fn shm_bytes(&self) -> u64 {
        self.shm_bytes
    }

    /// Resource limits of processes.
    #[must_use]
    pub fn ulimits(&self) -> &Ulimits {
        &self.ulimits
    }

    /// Additional lines of `/etc/hosts`.
    #[must_use]
    pub fn extra_hosts(&self) -> &ExtraHosts {
        &self.extra_hosts
    }

    /// Name servers.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Destinations on the node.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.egress
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
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Reason::new(
            "is not the name of an environment variable: use at least one character, and neither `=` nor NUL",
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
