//! The flags of a service's settings, for a new service and for an update.

use std::time::Duration;

use clap::Args;
use cless_proto::v1 as pb;

use crate::parse::{self, Affinity, OrOff};

/// Only the settings given are sent. The control plane has the defaults.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Service settings (defaults apply to new services)")]
pub(crate) struct SettingsArgs {
    /// Minimum instances per node of each version with traffic [default: 0]
    #[arg(long, value_name = "N")]
    min_instances: Option<u32>,
    /// Maximum instances per node and version [default: 10]
    #[arg(long, value_name = "N")]
    max_instances: Option<u32>,
    /// Maximum concurrent requests per instance [default: 80]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Remove an instance after this time without requests [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    idle_timeout: Option<Duration>,
    /// Pause an instance after this time without requests [default: off]
    #[arg(long, value_name = "DURATION|off")]
    #[arg(value_parser = parse::duration_or_off)]
    pause_after: Option<OrOff>,
    /// Maximum time a request waits for an instance [default: 30s]
    #[arg(long, value_name = "DURATION")]
    #[arg(value_parser = parse::duration)]
    cold_start_timeout: Option<Duration>,
    /// Maximum duration of a request, response body included [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    request_timeout: Option<Duration>,
    /// Maximum requests waiting for an instance, per version and node [default: 1000]
    #[arg(long, value_name = "N")]
    queue_limit: Option<u32>,
    /// Session affinity to a version: none, cookie or header:NAME [default: none]
    #[arg(long, value_name = "KIND")]
    affinity: Option<Affinity>,
    /// Let clients select a version with the `cless-version` request header [default: false]
    #[arg(long, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    version_header: Option<bool>,
    /// Report cold start phases in the `Server-Timing` response header [default: false]
    #[arg(long, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    server_timing: Option<bool>,
}

impl SettingsArgs {
    /// The settings given, and the field mask that lists exactly those.
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
    fn the_field_mask_lists_exactly_the_settings_given() {
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
