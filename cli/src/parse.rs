//! Parsers of flag values: durations, sizes, cores, percentages, `K=V`, version references, targets.
//!
//! Pure. Every error quotes the input and shows a valid form; clap adds the flag. Laws: a value of
//! [`duration`], [`size`] or [`cores`] parses to the same value when written in a smaller unit, and
//! no input panics.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An invalid value, with a valid form in its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "`{0}` is not a duration: write a number with a unit, as in 500ms, 30s, 5m, 1h or 1m30s"
    )]
    Duration(String),
    #[error("`{0}` is not a time: write a duration such as 1h, or 2026-12-01T08:00:00Z")]
    Since(String),
    #[error("`{0}` is not greater than 0: write a duration such as 30m, 12h, 7d or 1h30m")]
    ZeroDuration(String),
    #[error("`{0}` is not a size: write bytes or a number with a unit, as in 512Mi, 1Gi or 500M")]
    Size(String),
    #[error("`{0}` is not a number of cores: write 0.5, 2 or 500m (millicores)")]
    Cores(String),
    #[error("`{0}` is not a percentage: write a whole number from 0 to 100, as in 10 or 10%")]
    Percent(String),
    #[error("`{0}` has no `=`: write {1}")]
    NoEquals(String, &'static str),
    #[error("`{0}` has no name before `=`: write {1}")]
    NoKey(String, &'static str),
    #[error(
        "`{0}` is not a variable: write NAME=value, NAME for the value that it has here, or NAME- to remove it"
    )]
    EnvChange(String),
    #[error("`{0}` is not a version: write v3, 3, @latest or @prev")]
    Version(String),
    #[error(
        "`{0}` can be version {0} or traffic revision {0}: write `v{0}` to send all traffic to the version, or `--to {0}` to restore the revision"
    )]
    BareNumber(String),
    #[error("`{0}` is not a {1} name: write it as {2}")]
    Name(String, &'static str, &'static str),
    #[error("`{0}` is not a traffic target: {1}; write v3=10, v3 (takes the rest) or v3=10:canary")]
    Target(String, String),
    #[error("`{0}` is not a status range: write 200-399 or 204")]
    StatusRange(String),
    #[error(
        "`{0}` is not a mount point: write /PATH or /PATH:OPTIONS, as in /tmp:64Mi or /tmp:size=64Mi,exec"
    )]
    Mount(String),
    #[error(
        "`{0}` is not a limit: write NAME=SOFT:HARD, as in nofile=1024:65536, or NAME=BOTH, as in memlock=-1"
    )]
    Ulimit(String),
    #[error("`{0}` is not a capability: write a name of capabilities(7), as in NET_RAW")]
    Capability(String),
    #[error("`{0}` is not a line of /etc/hosts: write HOST:IP, as in db:10.0.0.5")]
    HostLine(String),
    #[error("`{0}` is not an affinity: write none, cookie or header:NAME")]
    Affinity(String),
}

/// `500ms`, `30s`, `5m`, `1h`, `1m30s` and the other forms of [`cless_proto::duration::parse`].
pub(crate) fn duration(text: &str) -> Result<Duration, Error> {
    let error = || Error::Duration(text.to_owned());
    let total = cless_proto::duration::parse(text).ok_or_else(error)?;
    // The limit of a protobuf duration, about 10 000 years.
    if total.as_secs() > 315_576_000_000 {
        return Err(error());
    }
    Ok(total)
}

/// A duration above zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, Error> {
    let total = duration(text)?;
    if total.is_zero() {
        return Err(Error::ZeroDuration(text.to_owned()));
    }
    Ok(total)
}

/// A duration, or `off`.
pub(crate) fn duration_or_off(text: &str) -> Result<OrOff, Error> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(OrOff::Off);
    }
    duration(text).map(OrOff::After)
}

/// A setting that can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrOff {
    Off,
    After(Duration),
}

/// Bytes: `512Mi`, `1Gi` (powers of 1024), `500M`, `1G` (powers of 1000) or a bare number.
pub(crate) fn size(text: &str) -> Result<u64, Error> {
    let error = || Error::Size(text.to_owned());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let each: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(error()),
    };
    number.checked_mul(each).ok_or_else(error)
}

/// A size above zero.
pub(crate) fn positive_size(text: &str) -> Result<u64, Error> {
    let bytes = size(text)?;
    // In the API 0 means the default.
    match bytes {
        0 => Err(Error::Size(text.to_owned())),
        bytes => Ok(bytes),
    }
}

/// Thousandths of a core, from `0.5`, `2` or `500m`.
pub(crate) fn cores(text: &str) -> Result<u32, Error> {
    let error = || Error::Cores(text.to_owned());
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if let Some(millis) = text.strip_suffix('m') {
        return if millis.is_empty() || !is_number(millis) {
            Err(error())
        } else {
            millis.parse().map_err(|_| error())
        };
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    // `parse` would accept a sign; three digits are the resolution of the API.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 3 {
        return Err(error());
    }
    if !is_number(whole) || !is_number(fraction) {
        return Err(error());
    }
    let whole: u32 = whole.parse().map_err(|_| error())?;
    let fraction: u32 = format!("{fraction:0<3}").parse().map_err(|_| error())?;
    whole
        .checked_mul(1000)
        .and_then(|millis| millis.checked_add(fraction))
        .ok_or_else(error)
}

/// `10` or `10%`.
pub(crate) fn percent(text: &str) -> Result<u32, Error> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<u32>() {
        Ok(percent) if percent <= 100 && number.bytes().all(|b| b.is_ascii_digit()) => Ok(percent),
        _ => Err(Error::Percent(text.to_owned())),
    }
}

/// `NAME=value` of an environment variable; the value may contain anything.
pub(crate) fn env(text: &str) -> Result<(String, String), Error> {
    key_value(text, "NAME=value")
}

/// The change of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EnvChange {
    /// `NAME=value`.
    Set(String, String),
    /// `NAME`: the value that this process has, if any, as `docker run` does.
    Inherit(String),
    /// `NAME-`.
    Remove(String),
}

/// The change of an environment variable.
pub(crate) fn env_change(text: &str) -> Result<EnvChange, Error> {
    if text.contains('=') {
        return env(text).map(|(name, value)| EnvChange::Set(name, value));
    }
    match text.strip_suffix('-') {
        Some("") => Err(Error::EnvChange(text.to_owned())),
        Some(name) => Ok(EnvChange::Remove(name.to_owned())),
        None if text.is_empty() || text.contains(char::is_whitespace) => {
            Err(Error::EnvChange(text.to_owned()))
        }
        None => Ok(EnvChange::Inherit(text.to_owned())),
    }
}

/// `key=value` of a label.
pub(crate) fn label(text: &str) -> Result<(String, String), Error> {
    key_value(text, "key=value")
}

fn key_value(text: &str, form: &'static str) -> Result<(String, String), Error> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::NoEquals(text.to_owned(), form))?;
    if key.is_empty() {
        return Err(Error::NoKey(text.to_owned(), form));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A tmpfs: `/tmp`, `/tmp:64Mi` or `/tmp:size=64Mi,exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TmpfsArg {
    pub(crate) path: String,
    /// 0 for the default.
    pub(crate) size: u64,
    /// Whether programs can be run from it.
    pub(crate) exec: bool,
}

impl FromStr for TmpfsArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::Mount(text.to_owned());
        let (path, options) = match text.split_once(':') {
            None => (text, None),
            Some((path, options)) => (path, Some(options)),
        };
        if !path.starts_with('/') {
            return Err(error());
        }
        let mut mount = Self {
            path: path.to_owned(),
            size: 0,
            exec: false,
        };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "exec" => mount.exec = true,
                "noexec" => mount.exec = false,
                _ => {
                    let typed = option.strip_prefix("size=").unwrap_or(option);
                    mount.size = positive_size(typed).map_err(|_| error())?;
                }
            }
        }
        Ok(mount)
    }
}

/// A resource limit: `nofile=1024:65536`, or `memlock=-1` for both limits. -1 and `unlimited` are
/// the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UlimitArg {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

impl UlimitArg {
    pub(crate) fn to_proto(&self) -> cless_proto::v1::Ulimit {
        cless_proto::v1::Ulimit {
            name: self.name.clone(),
            soft: self.soft,
            hard: self.hard,
        }
    }
}

impl FromStr for UlimitArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::Ulimit(text.to_owned());
        let limit = |text: &str| match text {
            "unlimited" => Ok(-1),
            number => number.parse().map_err(|_| error()),
        };
        let (name, limits) = text.split_once('=').ok_or_else(error)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        if name.is_empty() {
            return Err(error());
        }
        Ok(Self {
            name: name.to_owned(),
            soft: limit(soft)?,
            hard: limit(hard)?,
        })
    }
}

/// The only spelling of a capability.
pub(crate) fn capability(text: &str) -> Result<String, Error> {
    let known = cless_proto::capability::parse(text).map(str::to_owned);
    known.ok_or_else(|| Error::Capability(text.to_owned()))
}

/// `db:10.0.0.5` or `db=10.0.0.5`, as Docker takes both; an IPv6 address may have brackets.
pub(crate) fn host_line(text: &str) -> Result<(String, String), Error> {
    let (name, address) = text
        .split_once([':', '='])
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| Error::HostLine(text.to_owned()))?;
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    Ok((name.to_owned(), bare.unwrap_or(address).to_owned()))
}

/// `200-399` or `204`, inclusive.
pub(crate) fn status_range(text: &str) -> Result<(u32, u32), Error> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |part: &str| part.parse::<u32>().ok().filter(|n| (100..=599).contains(n));
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(Error::StatusRange(text.to_owned())),
    }
}

/// The session affinity of clients to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Affinity {
    None,
    /// By a cookie that the proxy sets.
    Cookie,
    /// By the value of the request header of this name.
    Header(String),
}

impl FromStr for Affinity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "cookie" => Ok(Self::Cookie),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
            _ => Err(Error::Affinity(text.to_owned())),
        }
    }
}

/// The id of a service, from `hello` or `services/hello`.
pub(crate) fn service(text: &str) -> Result<String, Error> {
    id(text, "services/").ok_or_else(|| Error::Name(text.to_owned(), "service", "hello"))
}

/// The id of a node, from `local` or `nodes/local`.
pub(crate) fn node(text: &str) -> Result<String, Error> {
    id(text, "nodes/").ok_or_else(|| Error::Name(text.to_owned(), "node", "local"))
}

/// Rejects only input that changes the structure of a resource name; the control plane validates ids.
fn id(text: &str, prefix: &str) -> Option<String> {
    let id = text.strip_prefix(prefix).unwrap_or(text);
    (!id.is_empty() && !id.contains('/')).then(|| id.to_owned())
}

/// A reference to a version of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionRef {
    /// `v3` or `3`.
    Number(i32),
    /// `@latest`: the newest verified version.
    Latest,
    /// `@prev`: the version with the largest share of the traffic that a rollback would restore.
    Previous,
}

/// A version where a bare number could also be a traffic revision: `v3`, `@latest` or `@prev`.
pub(crate) fn unambiguous_version(text: &str) -> Result<VersionRef, Error> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::BareNumber(text.to_owned()));
    }
    text.parse()
}

impl FromStr for VersionRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "@latest" => return Ok(Self::Latest),
            "@prev" => return Ok(Self::Previous),
            _ => {}
        }
        let digits = text.strip_prefix('v').unwrap_or(text);
        match digits.parse::<i32>() {
            Ok(number) if number > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self::Number(number))
            }
            _ => Err(Error::Version(text.to_owned())),
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "v{number}"),
            Self::Latest => f.write_str("@latest"),
            Self::Previous => f.write_str("@prev"),
        }
    }
}

/// One argument of `traffic set`: `v3=10`, `v3` or `v3=10:canary`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetArg {
    pub(crate) version: VersionRef,
    /// `None` takes the remainder of 100.
    pub(crate) percent: Option<u32>,
    pub(crate) tag: Option<String>,
}

impl FromStr for TargetArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |reason: String| Error::Target(text.to_owned(), reason);
        let (rest, tag) = match text.split_once(':') {
            Some((_, "")) => return Err(error("the tag after `:` is empty".to_owned())),
            Some((rest, tag)) => (rest, Some(tag.to_owned())),
            None => (text, None),
        };
        let (version, share) = match rest.split_once('=') {
            Some((version, share)) => {
                let share = percent(share)
                    .map_err(|_| error(format!("`{share}` is not a whole number from 0 to 100")))?;
                (version, Some(share))
            }
            None => (rest, None),
        };
        let version = version
            .parse()
            .map_err(|_| error(format!("`{version}` is not v3, 3, @latest or @prev")))?;
        Ok(Self {
            version,
            percent: share,
            tag,
        })
    }
}

/// The value of `--tag canary=v3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagArg {
    pub(crate) tag: String,
    pub(crate) version: VersionRef,
}

impl FromStr for TagArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (tag, version) = key_value(text, "canary=v3")?;
        Ok(Self {
            tag,
            version: version.parse()?,
        })
    }
}

/// The beginning of a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// At this time.
    At(prost_types::Timestamp),
}

impl Since {
    /// The time, if it is `now`.
    pub(crate) fn at(self, now: SystemTime) -> prost_types::Timestamp {
        match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH).into(),
            Self::At(time) => time,
        }
    }
}

/// `1h`, `30d`: so long ago; else a time in RFC 3339.
pub(crate) fn since(text: &str) -> Result<Since, Error> {
    if let Ok(ago) = duration(text) {
        return Ok(Since::Ago(ago));
    }
    // The parser accepts years beyond those of RFC 3339.
    let time = Some(text).filter(|text| text.len() <= 40);
    let time = time.and_then(|text| text.parse().ok());
    time.map(Since::At)
        .ok_or_else(|| Error::Since(text.to_owned()))
}

#[cfg(test)]
mod tests;
