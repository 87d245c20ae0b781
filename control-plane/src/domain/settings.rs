//! The settings of a service: how its versions scale, sleep and are called.
//!
//! Every field may be left out and then has its default. A patch (AIP-134) names fields: a named field that is left
//! out goes back to its default, fields that are not named stay. Rules over two fields are checked on the result.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Error, Violations};

/// A name for each field of `cless.v1.ServiceSettings`, as a field mask spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingsField {
    /// `min_instances`
    MinInstances,
    /// `max_instances`
    MaxInstances,
    /// `concurrency`
    Concurrency,
    /// `idle_timeout`
    IdleTimeout,
    /// `pause_after`
    PauseAfter,
    /// `cold_start_timeout`
    ColdStartTimeout,
    /// `request_timeout`
    RequestTimeout,
    /// `queue_limit`
    QueueLimit,
    /// `affinity`
    Affinity,
    /// `version_header`
    VersionHeader,
    /// `server_timing`
    ServerTiming,
}

impl SettingsField {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::MinInstances,
        Self::MaxInstances,
        Self::Concurrency,
        Self::IdleTimeout,
        Self::PauseAfter,
        Self::ColdStartTimeout,
        Self::RequestTimeout,
        Self::QueueLimit,
        Self::Affinity,
        Self::VersionHeader,
        Self::ServerTiming,
    ];

    /// As the `.proto` file and a field mask spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MinInstances => "min_instances",
            Self::MaxInstances => "max_instances",
            Self::Concurrency => "concurrency",
            Self::IdleTimeout => "idle_timeout",
            Self::PauseAfter => "pause_after",
            Self::ColdStartTimeout => "cold_start_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::QueueLimit => "queue_limit",
            Self::Affinity => "affinity",
            Self::VersionHeader => "version_header",
            Self::ServerTiming => "server_timing",
        }
    }

    /// The field of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }
}

/// What keeps a caller on one version while weights do not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each request is drawn anew.
    None,
    /// A cookie that the proxy sets.
    Cookie,
    /// The value of the request header of this name, in lower case.
    Header(String),
}

/// [`Affinity`] without the header's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AffinityKind {
    /// `KIND_NONE`, or not given.
    #[default]
    None,
    /// `KIND_COOKIE`
    Cookie,
    /// `KIND_HEADER`
    Header,
}

/// [`Affinity`] as a request carries it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AffinityInput {
    /// Which.
    pub kind: AffinityKind,
    /// The header's name, or nothing.
    pub header: String,
}

/// Settings as a request carries them: nothing is checked, what is `None` was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the fields of cless.v1.ServiceSettings, documented there"
)]
pub struct SettingsInput {
    pub min_instances: Option<u32>,
    pub max_instances: Option<u32>,
    pub concurrency: Option<u32>,
    pub idle_timeout: Option<Duration>,
    pub pause_after: Option<Duration>,
    pub cold_start_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub queue_limit: Option<u32>,
    pub affinity: Option<AffinityInput>,
    pub version_header: Option<bool>,
    pub server_timing: Option<bool>,
}

impl SettingsInput {
    /// The fields that are given: what an update without a mask touches.
    #[must_use]
    pub fn given(&self) -> BTreeSet<SettingsField> {
        SettingsField::ALL
            .into_iter()
            .filter(|field| match field {
                SettingsField::MinInstances => self.min_instances.is_some(),
                SettingsField::MaxInstances => self.max_instances.is_some(),
                SettingsField::Concurrency => self.concurrency.is_some(),
                SettingsField::IdleTimeout => self.idle_timeout.is_some(),
                SettingsField::PauseAfter => self.pause_after.is_some(),
                SettingsField::ColdStartTimeout => self.cold_start_timeout.is_some(),
                SettingsField::RequestTimeout => self.request_timeout.is_some(),
                SettingsField::QueueLimit => self.queue_limit.is_some(),
                SettingsField::Affinity => self.affinity.is_some(),
                SettingsField::VersionHeader => self.version_header.is_some(),
                SettingsField::ServerTiming => self.server_timing.is_some(),
            })
            .collect()
    }
}

/// Settings within their ranges, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    min_instances: u32,
    max_instances: u32,
    concurrency: u32,
    idle_timeout: Duration,
    pause_after: Option<Duration>,
    cold_start_timeout: Duration,
    request_timeout: Duration,
    queue_limit: u32,
    affinity: Affinity,
    version_header: bool,
    server_timing: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);
/// Freezing sooner than this would freeze an instance between two requests of one page.
const PAUSE_AFTER_MIN: Duration = Duration::from_millis(100);

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_instances: 0,
            max_instances: 10,
            concurrency: 80,
            idle_timeout: Duration::from_secs(120),
            pause_after: None,
            cold_start_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(300),
            queue_limit: 1000,
            affinity: Affinity::None,
            version_header: false,
            server_timing: false,
        }
    }
}

impl Settings {
    /// Reads the settings at `field` (`service.settings`); what is refused is noted in `violations`.
    pub fn new(field: &str, input: SettingsInput, violations: &mut Violations) -> Option<Self> {
        let patch = SettingsPatch::new(
            field,
            SettingsField::ALL.into_iter().collect(),
            input,
            violations,
        )?;
        match Self::default().patched(field, &patch) {
            Ok(settings) => Some(settings),
            Err(error) => {
                for violation in error.violations() {
                    violations.push(violation.field.clone(), violation.reason.clone());
                }
                None
            }
        }
    }

    /// These settings with a patch applied.
    ///
    /// # Errors
    /// If two fields of the result contradict each other; `field` is the path of the settings in the request.
    pub fn patched(&self, field: &str, patch: &SettingsPatch) -> Result<Self, Error> {
        let mut next = self.clone();
        let from = &patch.values;
        for named in &patch.fields {
            match named {
                SettingsField::MinInstances => next.min_instances = from.min_instances,
                SettingsField::MaxInstances => next.max_instances = from.max_instances,
                SettingsField::Concurrency => next.concurrency = from.concurrency,
                SettingsField::IdleTimeout => next.idle_timeout = from.idle_timeout,
                SettingsField::PauseAfter => next.pause_after = from.pause_after,
                SettingsField::ColdStartTimeout => {
                    next.cold_start_timeout = from.cold_start_timeout
                }
                SettingsField::RequestTimeout => next.request_timeout = from.request_timeout,
                SettingsField::QueueLimit => next.queue_limit = from.queue_limit,
                SettingsField::Affinity => next.affinity = from.affinity.clone(),
                SettingsField::VersionHeader => next.version_header = from.version_header,
                SettingsField::ServerTiming => next.server_timing = from.server_timing,
            }
        }
        next.cross_check(field)?;
        Ok(next)
    }

    fn cross_check(&self, field: &str) -> Result<(), Error> {
        let mut violations = Violations::new();
        if self.min_instances > self.max_instances {
            violations.push(
                format!("{field}.min_instances"),
                format!(
                    "{} is more than max_instances, {}: lower it, or raise max_instances",
                    self.min_instances, self.max_instances
                ),
            );
        }
        if let Some(pause_after) = self.pause_after.filter(|&pause| pause >= self.idle_timeout) {
            violations.push(
                format!("{field}.pause_after"),
                format!(
                    "{pause_after:?} is not under idle_timeout, {:?}, when instances are removed: lower it, or raise idle_timeout",
                    self.idle_timeout
                ),
            );
        }
        violations.finish()
    }

    /// Instances kept warm per node for each version in traffic.
    #[must_use]
    pub fn min_instances(&self) -> u32 {
        self.min_instances
    }

    /// Most instances per node and version.
    #[must_use]
    pub fn max_instances(&self) -> u32 {
        self.max_instances
    }

    /// Most requests at once in one instance.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// An instance without requests for this long is removed.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// An instance without requests for this long is frozen, if ever.
    #[must_use]
    pub fn pause_after(&self) -> Option<Duration> {
        self.pause_after
    }

    /// How long a request waits for an instance.
    #[must_use]
    pub fn cold_start_timeout(&self) -> Duration {
        self.cold_start_timeout
    }

    /// From a request to the end of its response.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Requests that may wait for an instance, per version and node.
    #[must_use]
    pub fn queue_limit(&self) -> u32 {
        self.queue_limit
    }

    /// How callers are kept on one version.
    #[must_use]
    pub fn affinity(&self) -> &Affinity {
        &self.affinity
    }

    /// Whether a caller may choose the version by a header.
    #[must_use]
    pub fn version_header(&self) -> bool {
        self.version_header
    }

    /// Whether responses tell the phases of a cold start.
    #[must_use]
    pub fn server_timing(&self) -> bool {
        self.server_timing
    }
}

/// Some fields of [`Settings`], each within its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsPatch {
    fields: BTreeSet<SettingsField>,
    /// Fields that are not named hold their default, which nobody reads.
    values: Settings,
}

impl SettingsPatch {
    /// Reads the named fields of the settings at `field` (`service.settings`); what is refused is noted in
    /// `violations`. Fields that are not named are not looked at.
    pub fn new(
        field: &str,
        fields: BTreeSet<SettingsField>,
        input: SettingsInput,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        let mut values = Settings::default();
        let mut check = Check {
            prefix: field,
            violations,
        };
        for &named in &fields {
            match named {
                SettingsField::MinInstances => {
                    check.number(
                        named,
                        input.min_instances,
                        0..=1000,
                        &mut values.min_instances,
                    );
                }
                SettingsField::MaxInstances => {
                    check.number(
                        named,
                        input.max_instances,
                        1..=1000,
                        &mut values.max_instances,
                    );
                }
                SettingsField::Concurrency => {
                    check.number(
                        named,
                        input.concurrency,
                        1..=10_000,
                        &mut values.concurrency,
                    );
                }
                SettingsField::QueueLimit => {
                    check.number(
                        named,
                        input.queue_limit,
                        0..=100_000,
                        &mut values.queue_limit,
                    );
                }
                SettingsField::IdleTimeout => {
                    check.time(
                        named,
                        input.idle_timeout,
                        SECOND..=DAY,
                        &mut values.idle_timeout,
                    );
                }
                SettingsField::PauseAfter => {
                    let mut pause = Duration::ZERO;
                    check.time(named, input.pause_after, PAUSE_AFTER_MIN..=DAY, &mut pause);
                    values.pause_after = input.pause_after.map(|_| pause);
                }
                SettingsField::ColdStartTimeout => check.time(
                    named,
                    input.cold_start_timeout,
                    SECOND..=TEN_MINUTES,
                    &mut values.cold_start_timeout,
                ),
                SettingsField::RequestTimeout => check.time(
                    named,
                    input.request_timeout,
                    SECOND..=DAY,
                    &mut values.request_timeout,
                ),
                SettingsField::Affinity => {
                    let given = input.affinity.clone().unwrap_or_default();
                    if let Some(affinity) = check.affinity(given) {
                        values.affinity = affinity;
                    }
                }
                SettingsField::VersionHeader => {
                    values.version_header = input.version_header.unwrap_or(false);
                }
                SettingsField::ServerTiming => {
                    values.server_timing = input.server_timing.unwrap_or(false);
                }
            }
        }
        (violations.len() == before).then_some(Self { fields, values })
    }

    /// The fields it changes.
    #[must_use]
    pub fn fields(&self) -> &BTreeSet<SettingsField> {
        &self.fields
    }
}

struct Check<'a> {
    prefix: &'a str,
    violations: &'a mut Violations,
}

impl Check<'_> {
    fn number(
        &mut self,
        field: SettingsField,
        given: Option<u32>,
        range: RangeInclusive<u32>,
        into: &mut u32,
    ) {
        let Some(given) = given else { return };
        if range.contains(&given) {
            *into = given;
            return;
        }
        self.refuse(
            field,
            format!(
                "{given} is out of range: give {} to {}",
                range.start(),
                range.end()
            ),
        );
    }

    fn time(
        &mut self,
        field: SettingsField,
        given: Option<Duration>,
        range: RangeInclusive<Duration>,
        into: &mut Duration,
    ) {
        let Some(given) = given else { return };
        if range.contains(&given) {
            *into = given;
            return;
        }
        self.refuse(
            field,
            format!(
                "{given:?} is out of range: give {:?} to {:?}",
                range.start(),
                range.end()
            ),
        );
    }

    fn affinity(&mut self, given: AffinityInput) -> Option<Affinity> {
        let at = format!("{}.affinity.header", self.prefix);
        match given.kind {
            AffinityKind::Header if is_header_name(&given.header) => {
                return Some(Affinity::Header(given.header.to_ascii_lowercase()));
            }
            AffinityKind::Header => self.violations.push(
                at,
                format!(
                    "`{}` is not the name of a header: give one such as `x-user`",
                    given
                        .header
                        .chars()
                        .take(80)
                        .collect::<String>()
                        .escape_debug()
                ),
            ),
            _ if !given.header.is_empty() => self.violations.push(
                at,
                "a header is only read with KIND_HEADER: set that kind, or leave the header out",
            ),
            AffinityKind::Cookie => return Some(Affinity::Cookie),
            AffinityKind::None => return Some(Affinity::None),
        }
        None
    }

    fn refuse(&mut self, field: SettingsField, reason: String) {
        self.violations
            .push(format!("{}.{}", self.prefix, field.as_str()), reason);
    }
}

/// A token of at most 64 characters (RFC 9110 section 5.6.2).
fn is_header_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "service.settings";

    fn read(input: SettingsInput) -> Result<Settings, Error> {
        let mut violations = Violations::new();
        let read = Settings::new(AT, input, &mut violations);
        violations.finish()?;
        Ok(read.expect("neither settings nor violations"))
    }

    fn fields(error: &Error) -> Vec<&str> {
        error
            .violations()
            .iter()
            .map(|v| v.field.as_str())
            .collect()
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(read(SettingsInput::default()).unwrap(), Settings::default());
    }

    #[test]
    fn every_field_out_of_range_is_named_at_once() {
        let error = read(SettingsInput {
            min_instances: Some(1001),
            max_instances: Some(0),
            concurrency: Some(0),
            idle_timeout: Some(Duration::from_millis(999)),
            pause_after: Some(Duration::ZERO),
            cold_start_timeout: Some(TEN_MINUTES + SECOND),
            request_timeout: Some(DAY + SECOND),
            queue_limit: Some(100_001),
            affinity: Some(AffinityInput {
                kind: AffinityKind::Header,
                header: "not a header".to_owned(),
            }),
            ..SettingsInput::default()
        })
        .unwrap_err();
        assert_eq!(error.violations().len(), 9, "{error}");
        assert!(fields(&error).contains(&"service.settings.affinity.header"));
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        let error = read(SettingsInput {
            min_instances: Some(11),
            pause_after: Some(Duration::from_secs(120)),
            ..SettingsInput::default()
        })
        .unwrap_err();
        assert_eq!(
            fields(&error),
            [
                "service.settings.min_instances",
                "service.settings.pause_after"
            ]
        );
    }

    #[test]
    fn a_patch_resets_what_it_names_and_leaves_out() {
        let before = read(SettingsInput {
            concurrency: Some(5),
            queue_limit: Some(7),
            ..SettingsInput::default()
        })
        .unwrap();
        let mut violations = Violations::new();
        let patch = SettingsPatch::new(
            AT,
            BTreeSet::from([SettingsField::Concurrency]),
            SettingsInput {
                queue_limit: Some(u32::MAX),
                ..SettingsInput::default()
            },
            &mut violations,
        )
        .expect("fields that are not named are not looked at");
        let after = before.patched(AT, &patch).unwrap();
        assert_eq!(after.concurrency(), 80);
        assert_eq!(after.queue_limit(), 7);
    }

    #[test]
    fn a_patch_is_checked_against_what_stays() {
        let mut violations = Violations::new();
        let patch = SettingsPatch::new(
            AT,
            BTreeSet::from([SettingsField::MaxInstances]),
            SettingsInput {
                max_instances: Some(1),
                ..SettingsInput::default()
            },
            &mut violations,
        )
        .unwrap();
        let before = read(SettingsInput {
            min_instances: Some(2),
            ..SettingsInput::default()
        })
        .unwrap();
        assert!(before.patched(AT, &patch).is_err());
    }

    #[test]
    fn a_header_is_kept_in_lower_case_and_only_where_it_is_read() {
        let mut input = AffinityInput {
            kind: AffinityKind::Header,
            header: "X-User".to_owned(),
        };
        let with = |affinity: &AffinityInput| {
            read(SettingsInput {
                affinity: Some(affinity.clone()),
                ..SettingsInput::default()
            })
        };
        assert_eq!(
            with(&input).unwrap().affinity(),
            &Affinity::Header("x-user".to_owned())
        );
        input.kind = AffinityKind::Cookie;
        assert!(with(&input).is_err());
    }

    #[test]
    fn fields_are_found_by_name() {
        for field in SettingsField::ALL {
            assert_eq!(SettingsField::parse(field.as_str()), Some(field));
        }
        assert_eq!(SettingsField::parse("minInstances"), None);
    }
}
