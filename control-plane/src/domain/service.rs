//! A service, and an update of it.

use serde::Serialize;

use super::host::HostName;
use super::id::{ServiceId, Uid};
use super::labels::Labels;
use super::settings::{Settings, SettingsPatch};
use super::time::Timestamp;

/// Whether a service receives traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// No traffic is set; the hosts answer 503.
    NoTraffic,
    /// Traffic is set.
    Serving,
}

/// A named HTTP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The uid, never reused.
    pub uid: Uid,
    /// The last segment of the resource name.
    pub id: ServiceId,
    /// `NAME.DOMAIN`
    pub default_host: HostName,
    /// Extra hosts, in the given order.
    pub hosts: Vec<HostName>,
    /// The settings of its versions.
    pub settings: Settings,
    /// The labels.
    pub labels: Labels,
    /// Changes with every write to the service, not with writes to versions or traffic.
    pub etag: String,
    /// Time of creation.
    pub create_time: Timestamp,
    /// Time of the last write.
    pub update_time: Timestamp,
    /// The feed revision of the last write to the service, its versions or its traffic.
    pub revision: i64,
    /// Whether traffic is set.
    pub state: ServiceState,
}

/// The changes of an update; `None` keeps a field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ServicePatch {
    /// Replaces the extra hosts.
    pub hosts: Option<Vec<HostName>>,
    /// Replaces the labels.
    pub labels: Option<Labels>,
    /// Changes some settings.
    pub settings: Option<SettingsPatch>,
}
