//! Partial settings, each field within its range.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::super::error::Violations;
use super::{Affinity, AffinityInput, AffinityKind, Settings, SettingsField, SettingsInput};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);
/// A shorter time would pause an instance between two requests of one page.
const PAUSE_AFTER_MIN: Duration = Duration::from_millis(100);

/// Some fields of [`Settings`], each within its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingsPatch {
    pub(super) fields: BTreeSet<SettingsField>,
    /// Values of the named fields; the others have their defaults and are not read.
    pub(super) values: Settings,
}

impl SettingsPatch {
    /// Validates the named fields of the settings at `field` (`service.settings`); adds refusals to
    /// `violations`.
    pub fn new(
        field: &str,
        fields: BTreeSet<SettingsField>,
        input: SettingsInput,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        let mut out = Settings::default();
        let mut check = Check {
            prefix: field,
            violations,
        };
        for &named in &fields {
            match named {
                SettingsField::MinInstances => {
                    check.range(named, input.min_instances, 0..=1000, &mut out.min_instances);
                }
                SettingsField::MaxInstances => {
                    check.range(named, input.max_instances, 1..=1000, &mut out.max_instances);
                }
                SettingsField::Concurrency => {
                    check.range(named, input.concurrency, 1..=10_000, &mut out.concurrency);
                }
                SettingsField::QueueLimit => {
                    check.range(named, input.queue_limit, 0..=100_000, &mut out.queue_limit);
                }
                SettingsField::IdleTimeout => {
                    check.range(
                        named,
                        input.idle_timeout,
                        SECOND..=DAY,
                        &mut out.idle_timeout,
                    );
                }
                SettingsField::PauseAfter => {
                    let mut pause = Duration::ZERO;
                    check.range(named, input.pause_after, PAUSE_AFTER_MIN..=DAY, &mut pause);
                    out.pause_after = input.pause_after.map(|_| pause);
                }
                SettingsField::ColdStartTimeout => check.range(
                    named,
                    input.cold_start_timeout,
                    SECOND..=TEN_MINUTES,
                    &mut out.cold_start_timeout,
                ),
                SettingsField::RequestTimeout => check.range(
                    named,
                    input.request_timeout,
                    SECOND..=DAY,
                    &mut out.request_timeout,
                ),
                SettingsField::Affinity => {
                    let given = input.affinity.clone().unwrap_or_default();
                    if let Some(affinity) = check.affinity(given) {
                        out.affinity = affinity;
                    }
                }
                SettingsField::VersionHeader => {
                    out.version_header = input.version_header.unwrap_or(false);
                }
                SettingsField::ServerTiming => {
                    out.server_timing = input.server_timing.unwrap_or(false);
                }
            }
        }
        (violations.len() == before).then_some(Self {
            fields,
            values: out,
        })
    }

    /// The named fields.
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
    fn range<T: PartialOrd + Debug>(
        &mut self,
        field: SettingsField,
        given: Option<T>,
        range: RangeInclusive<T>,
        into: &mut T,
    ) {
        match given {
            Some(given) if !range.contains(&given) => {
                let (start, end) = range.into_inner();
                self.violations.push(
                    format!("{}.{}", self.prefix, field.as_str()),
                    format!("{given:?} is out of range: give {start:?} to {end:?}"),
                );
            }
            Some(given) => *into = given,
            None => {}
        }
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
}

/// A token of at most 64 characters (RFC 9110 section 5.6.2).
fn is_header_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
