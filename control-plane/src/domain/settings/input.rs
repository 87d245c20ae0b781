//! Settings in a request, and the names of their fields.

use std::collections::BTreeSet;
use std::time::Duration;

/// A field of `cless.v1.ServiceSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
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
    /// All fields.
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

    /// The name in the `.proto` file and in field masks.
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

    /// The field of this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }
}

/// The kind of an [`Affinity`](super::Affinity).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AffinityKind {
    /// `KIND_NONE`, the default.
    #[default]
    None,
    /// `KIND_COOKIE`
    Cookie,
    /// `KIND_HEADER`
    Header,
}

/// An [`Affinity`](super::Affinity) in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AffinityInput {
    /// The kind.
    pub kind: AffinityKind,
    /// The name of the header; empty unless the kind is `Header`.
    pub header: String,
}

/// Unchecked settings in a request; `None` means absent.
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
    /// The fields with a value, which an update without a mask changes.
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
