//! The flags of a service's settings: given to a new service, or changed on one that is there.

use clap::Args;
use cless_proto::v1 as pb;
use std::time::Duration;

use crate::parse::{self, Affinity, OrOff};

/// Only what is given is sent; the control plane fills in the rest.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings of the service")]
pub(crate) struct SettingsArgs {
    /// Instances kept warm per node for each version in traffic [new service: 0]
    #[arg(long, env = "CLESS_MIN_INSTANCES", value_name = "N")]
    min_instances: Option<u32>,
    /// Most instances per node and version [new service: 10]
    #[arg(long, env = "CLESS_MAX_INSTANCES", value_name = "N")]
    max_instances: Option<u32>,
    /// Most requests at once in one instance [new service: 80]
    #[arg(long, env = "CLESS_CONCURRENCY", value_name = "N")]
    concurrency: Option<u32>,
    /// An instance without requests for this long is removed [new service: 2m]
    #[arg(long, env = "CLESS_IDLE_TIMEOUT", value_name = "TIME", value_parser = parse::duration)]
    idle_timeout: Option<Duration>,
    /// An instance without requests for this long is frozen, or `off` [new service: off]
    #[arg(long, env = "CLESS_PAUSE_AFTER", value_name = "TIME|off")]
    #[arg(value_parser = parse::duration_or_off)]
    pause_after: Option<OrOff>,
    /// How long a request waits for an instance [new service: 30s]
    #[arg(long, env = "CLESS_COLD_START_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = parse::duration)]
    cold_start_timeout: Option<Duration>,
    /// From the request to the end of the response [new service: 5m]
    #[arg(long, env = "CLESS_REQUEST_TIMEOUT", value_name = "TIME", value_parser = parse::duration)]
    request_timeout: Option<Duration>,
    /// Requests that may wait for an instance, per version and node [new service: 1000]
    #[arg(long, env = "CLESS_QUEUE_LIMIT", value_name = "N")]
    queue_limit: Option<u32>,
    /// Keeps a caller on one version: none, cookie or header:NAME [new service: none]
    #[arg(long, env = "CLESS_AFFINITY", value_name = "KIND")]
    affinity: Option<Affinity>,
    /// Let a caller choose the version by the request header `cless-version` [new service: false]
    #[arg(long, env = "CLESS_VERSION_HEADER", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    version_header: Option<bool>,
    /// Add `Server-Timing` with the phases of a cold start [new service: false]
    #[arg(long, env = "CLESS_SERVER_TIMING", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    server_timing: Option<bool>,
}

impl SettingsArgs {
    /// The settings given, and the mask that names exactly them.
    pub(crate) fn to_proto(&self) -> (pb::ServiceSettings, Vec<String>) {
        let time = |value: Option<Duration>| value.and_then(|d| d.try_into().ok());
        let settings = pb::ServiceSettings {
            min_instances: self.min_instances,
            max_instances: self.max_instances,
            concurrency: self.concurrency,
            idle_timeout: time(self.idle_timeout),
            pause_after: match self.pause_after {
                Some(OrOff::After(after)) => time(Some(after)),
                Some(OrOff::Off) | None => None,
            },
            cold_start_timeout: time(self.cold_start_timeout),
            request_timeout: time(self.request_timeout),
            queue_limit: self.queue_limit,
            affinity: self.affinity.as_ref().map(affinity),
            version_header: self.version_header,
            server_timing: self.server_timing,
        };
        let given = [
            ("min_instances", self.min_instances.is_some()),
            ("max_instances", self.max_instances.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("idle_timeout", self.idle_timeout.is_some()),
            ("pause_after", self.pause_after.is_some()),
            ("cold_start_timeout", self.cold_start_timeout.is_some()),
            ("request_timeout", self.request_timeout.is_some()),
            ("queue_limit", self.queue_limit.is_some()),
            ("affinity", self.affinity.is_some()),
            ("version_header", self.version_header.is_some()),
            ("server_timing", self.server_timing.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        (
            settings,
            given.map(|(name, _)| format!("settings.{name}")).collect(),
        )
    }
}

fn affinity(affinity: &Affinity) -> pb::Affinity {
    use pb::affinity::Kind;
    let (kind, header) = match affinity {
        Affinity::None => (Kind::None, String::new()),
        Affinity::Cookie => (Kind::Cookie, String::new()),
        Affinity::Header(name) => (Kind::Header, name.clone()),
    };
    pb::Affinity {
        kind: kind.into(),
        header,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_names_exactly_what_is_given() {
        let args = SettingsArgs {
            concurrency: Some(5),
            pause_after: Some(OrOff::Off),
            ..Default::default()
        };
        let (settings, mask) = args.to_proto();
        assert_eq!(mask, ["settings.concurrency", "settings.pause_after"]);
        assert_eq!(
            settings,
            pb::ServiceSettings {
                concurrency: Some(5),
                ..Default::default()
            }
        );
    }
}
