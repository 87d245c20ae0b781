//! Settings as a request carries them, and the names of their fields.

use std::collections::BTreeSet;
use std::time::Duration;

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

/// [`Affinity`](super::Affinity) without the header's name.
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

/// [`Affinity`](super::Affinity) as a request carries it.
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
