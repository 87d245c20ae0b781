//! The settings of a service: scaling, pausing, request handling.
//!
//! Every field is optional and has a default. A patch (AIP-134) names fields: a named field without
//! a value gets its default, other fields stay. Rules over two fields are checked on the result.

mod input;
mod patch;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Error, Violations};

pub use input::{AffinityInput, AffinityKind, SettingsField, SettingsInput};
pub use patch::SettingsPatch;

/// Affinity of callers to a version, while weights do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each request is routed independently.
    None,
    /// By a cookie that the proxy sets.
    Cookie,
    /// By the value of the request header of this name, in lower case.
    Header(String),
}

/// Complete and valid settings.
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
    total_timeout: Option<Duration>,
}

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
            total_timeout: None,
        }
    }
}

impl Settings {
    /// Validates the settings at `field` (`service.settings`); adds refusals to `violations`.
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

    /// Applies a patch. `field` is the path of the settings in the request.
    ///
    /// # Errors
    /// If two fields of the result contradict each other.
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
                SettingsField::TotalTimeout => next.total_timeout = from.total_timeout,
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

    /// Minimum number of running instances per node, for each version in traffic.
    #[must_use]
    pub fn min_instances(&self) -> u32 {
        self.min_instances
    }

    /// Maximum number of instances per node and version.
    #[must_use]
    pub fn max_instances(&self) -> u32 {
        self.max_instances
    }

    /// Maximum number of concurrent requests per instance.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// Time without requests after which an instance is removed.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Time without requests after which an instance is paused; `None`: never.
    #[must_use]
    pub fn pause_after(&self) -> Option<Duration> {
        self.pause_after
    }

    /// Maximum wait of a request for an instance.
    #[must_use]
    pub fn cold_start_timeout(&self) -> Duration {
        self.cold_start_timeout
    }

    /// Maximum time from a request to the head of its response, and then without a byte.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Maximum time from a request to the end of its response; `None`: no limit.
    #[must_use]
    pub fn total_timeout(&self) -> Option<Duration> {
        self.total_timeout
    }

    /// Maximum number of queued requests per version and node.
    #[must_use]
    pub fn queue_limit(&self) -> u32 {
        self.queue_limit
    }

    /// The affinity of callers to a version.
    #[must_use]
    pub fn affinity(&self) -> &Affinity {
        &self.affinity
    }

    /// Whether a request header may select the version.
    #[must_use]
    pub fn version_header(&self) -> bool {
        self.version_header
    }

    /// Whether responses carry the phases of a cold start.
    #[must_use]
    pub fn server_timing(&self) -> bool {
        self.server_timing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::patch::{DAY, SECOND, TEN_MINUTES};
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
            total_timeout: Some(Duration::from_millis(999)),
            affinity: Some(AffinityInput {
                kind: AffinityKind::Header,
                header: "not a header".to_owned(),
            }),
            ..SettingsInput::default()
        })
        .unwrap_err();
        assert_eq!(error.violations().len(), 10, "{error}");
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
        .expect("fields outside the mask are not validated");
        let after = before.patched(AT, &patch).unwrap();
        assert_eq!(after.concurrency(), 80);
        assert_eq!(after.queue_limit(), 7);
    }

    #[test]
    fn the_total_timeout_is_off_until_it_is_set_and_cleared_by_name() {
        assert_eq!(
            read(SettingsInput::default()).unwrap().total_timeout(),
            None
        );
        // Shorter than `request_timeout`, which is 300 s.
        let set = read(SettingsInput {
            total_timeout: Some(SECOND),
            ..SettingsInput::default()
        })
        .unwrap();
        assert_eq!(set.total_timeout(), Some(SECOND));
        let patch = |field| {
            let (fields, given) = (BTreeSet::from([field]), SettingsInput::default());
            SettingsPatch::new(AT, fields, given, &mut Violations::new()).unwrap()
        };
        let kept = set.patched(AT, &patch(SettingsField::RequestTimeout));
        assert_eq!(kept.unwrap().total_timeout(), Some(SECOND));
        let cleared = set.patched(AT, &patch(SettingsField::TotalTimeout));
        assert_eq!(cleared.unwrap().total_timeout(), None);
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
