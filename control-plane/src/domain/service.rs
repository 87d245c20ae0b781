//! A service, and what an update changes of it.

use super::host::HostName;
use super::id::{ServiceId, Uid};
use super::labels::Labels;
use super::settings::{Settings, SettingsPatch};
use super::time::Timestamp;

/// Whether requests to a service can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// No traffic is set: its hosts answer 503.
    NoTraffic,
    /// Traffic is set.
    Serving,
}

/// A named HTTP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Never reused.
    pub uid: Uid,
    /// The last segment of its name.
    pub id: ServiceId,
    /// `NAME.DOMAIN`.
    pub default_host: HostName,
    /// More hosts, in the order given.
    pub hosts: Vec<HostName>,
    /// How its versions scale, sleep and are called.
    pub settings: Settings,
    /// Free-form.
    pub labels: Labels,
    /// Changes with every write to the service itself.
    pub etag: String,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last written.
    pub update_time: Timestamp,
    /// The feed revision of the last write to it, its versions or its traffic.
    pub revision: i64,
    /// Whether it can answer.
    pub state: ServiceState,
}

/// What an update changes; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServicePatch {
    /// Replaces the extra hosts.
    pub hosts: Option<Vec<HostName>>,
    /// Replaces the labels.
    pub labels: Option<Labels>,
    /// Changes some settings.
    pub settings: Option<SettingsPatch>,
}
