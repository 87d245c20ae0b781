//! A service, and an update of it.

use serde::Serialize;

use super::host::HostName;
use super::id::{NodeName, ServiceId, Uid, VersionNumber};
use super::labels::Labels;
use super::settings::{Settings, SettingsPatch};
use super::start::{StartFailure, first_of};
use super::time::Timestamp;

/// Whether a service receives traffic, and whether its versions work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// No traffic is set; the hosts answer 503.
    NoTraffic,
    /// Traffic is set.
    Serving,
    /// Traffic is set, and a part of it fails; with the versions and reasons, as text for people.
    Degraded(String),
}

/// The reports of one connected node, as far as one service is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Whether its engine responds; `None` before its first report.
    pub engine_responds: Option<bool>,
    /// The versions of the service whose last start failed, or that are in back-off.
    pub troubles: Vec<StartTrouble<'a>>,
}

/// A version that does not start on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartTrouble<'a> {
    /// The version.
    pub version: VersionNumber,
    /// The last failure; `None` if the node gave none.
    pub failure: Option<&'a StartFailure>,
    /// Number of consecutive failed starts.
    pub failures: u32,
}

/// Maximum number of characters of one reason.
const REASON_SHOWN: usize = 200;

impl ServiceState {
    /// The state of a service with traffic on `weights`, by the reports of all connected nodes.
    #[must_use]
    pub fn of(weights: &[VersionNumber], nodes: &[NodeHealth<'_>]) -> Self {
        if weights.is_empty() {
            return Self::NoTraffic;
        }
        if nodes.is_empty() {
            return Self::Degraded("no node is connected: start a data plane".to_owned());
        }
        if nodes.iter().all(|node| node.engine_responds == Some(false)) {
            return Self::Degraded(
                "the container engine of no node responds: `cless node list` has the reasons"
                    .to_owned(),
            );
        }
        let troubles = nodes.iter().flat_map(|node| {
            let troubles = node.troubles.iter();
            let in_traffic = troubles.filter(|trouble| weights.contains(&trouble.version));
            in_traffic.map(|trouble| (node.node, trouble))
        });
        match first_of(troubles, |(node, trouble)| trouble.describe(node)) {
            none if none.is_empty() => Self::Serving,
            message => Self::Degraded(message),
        }
    }
}

impl StartTrouble<'_> {
    fn describe(&self, node: &NodeName) -> String {
        let reason = self.failure.map_or("no start succeeds", |failure| {
            failure.message.lines().next().unwrap_or_default()
        });
        let mut shown: String = reason.chars().take(REASON_SHOWN).collect();
        if shown.len() < reason.len() {
            shown.push('…');
        }
        let starts = match self.failures {
            0 => String::new(),
            1 => " (1 failed start)".to_owned(),
            more => format!(" ({more} failed starts)"),
        };
        format!("v{} on node {node}: {shown}{starts}", self.version)
    }
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
    /// The versions with a share of the traffic, ascending.
    pub in_traffic: Vec<VersionNumber>,
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

#[cfg(test)]
mod tests {
    use super::super::start::StartFailureReason;
    use super::*;

    fn failure(message: &str) -> StartFailure {
        StartFailure {
            reason: StartFailureReason::Exited,
            message: message.to_owned(),
            exit_code: Some(1),
            oom_killed: false,
            log_tail: vec![],
            time: None,
            signal: String::new(),
            last_probe: String::new(),
            engine_error: String::new(),
        }
    }

    fn numbers(of: &[i32]) -> Vec<VersionNumber> {
        of.iter().map(|&n| VersionNumber::new(n).unwrap()).collect()
    }

    fn degraded(weights: &[i32], nodes: &[NodeHealth<'_>]) -> String {
        match ServiceState::of(&numbers(weights), nodes) {
            ServiceState::Degraded(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_state_names_the_versions_in_traffic_that_do_not_start() {
        let name = NodeName::parse("a").unwrap();
        let failure = failure("exit code 1\nmore");
        let node = |engine_responds, troubled: &[i32]| NodeHealth {
            node: &name,
            engine_responds,
            troubles: numbers(troubled)
                .into_iter()
                .map(|version| StartTrouble {
                    version,
                    failure: Some(&failure),
                    failures: 3,
                })
                .collect(),
        };
        let healthy = node(Some(true), &[]);
        assert_eq!(ServiceState::of(&[], &[]), ServiceState::NoTraffic);
        let of =
            |weights: &[i32], nodes: &[NodeHealth<'_>]| ServiceState::of(&numbers(weights), nodes);
        let serving = ServiceState::Serving;
        assert_eq!(of(&[1], std::slice::from_ref(&healthy)), serving);
        assert_eq!(of(&[1], &[node(None, &[])]), serving, "not reported yet");
        assert_eq!(
            of(&[1], &[node(Some(true), &[2])]),
            serving,
            "not in traffic"
        );
        let away = node(Some(false), &[]);
        assert_eq!(of(&[1], &[away.clone(), healthy.clone()]), serving);

        assert!(degraded(&[1], &[]).contains("no node is connected"));
        assert!(degraded(&[1], &[away.clone(), away]).contains("engine"));
        assert_eq!(
            degraded(&[1, 3], &[healthy, node(Some(true), &[3])]),
            "v3 on node a: exit code 1 (3 failed starts)"
        );
        let many: Vec<_> = (0..9).map(|_| node(Some(true), &[3])).collect();
        let message = degraded(&[3], &many);
        assert_eq!(message.matches("v3").count(), 5, "{message}");
        assert!(message.ends_with("; and 4 more"), "{message}");
    }
}
