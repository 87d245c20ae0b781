//! Converts settings in both directions.

use super::{duration, read_duration};
use crate::domain::{Affinity, AffinityInput, AffinityKind, Settings, SettingsInput, Violations};
use cless_proto::v1 as pb;

/// Complete settings.
pub(crate) fn settings(settings: &Settings) -> pb::ServiceSettings {
    pb::ServiceSettings {
        min_instances: Some(settings.min_instances()),
        max_instances: Some(settings.max_instances()),
        concurrency: Some(settings.concurrency()),
        idle_timeout: Some(duration(settings.idle_timeout())),
        pause_after: settings.pause_after().map(duration),
        cold_start_timeout: Some(duration(settings.cold_start_timeout())),
        request_timeout: Some(duration(settings.request_timeout())),
        queue_limit: Some(settings.queue_limit()),
        affinity: Some(affinity(settings.affinity())),
        version_header: Some(settings.version_header()),
        server_timing: Some(settings.server_timing()),
        total_timeout: settings.total_timeout().map(duration),
    }
}

fn affinity(affinity: &Affinity) -> pb::Affinity {
    let (kind, header) = match affinity {
        Affinity::None => (pb::affinity::Kind::None, ""),
        Affinity::Cookie => (pb::affinity::Kind::Cookie, ""),
        Affinity::Header(name) => (pb::affinity::Kind::Header, name.as_str()),
    };
    pb::Affinity {
        kind: kind.into(),
        header: header.to_owned(),
    }
}

/// The settings at `field` of a request. Only values the domain type cannot hold are violations.
pub(super) fn read_settings(
    field: &str,
    settings: pb::ServiceSettings,
    violations: &mut Violations,
) -> SettingsInput {
    let mut duration =
        |name: &str, value| read_duration(&format!("{field}.{name}"), value, violations);
    SettingsInput {
        min_instances: settings.min_instances,
        max_instances: settings.max_instances,
        concurrency: settings.concurrency,
        idle_timeout: duration("idle_timeout", settings.idle_timeout),
        pause_after: duration("pause_after", settings.pause_after),
        cold_start_timeout: duration("cold_start_timeout", settings.cold_start_timeout),
        request_timeout: duration("request_timeout", settings.request_timeout),
        total_timeout: duration("total_timeout", settings.total_timeout),
        queue_limit: settings.queue_limit,
        affinity: settings
            .affinity
            .map(|affinity| read_affinity(field, affinity, violations)),
        version_header: settings.version_header,
        server_timing: settings.server_timing,
    }
}

fn read_affinity(
    field: &str,
    affinity: pb::Affinity,
    violations: &mut Violations,
) -> AffinityInput {
    use pb::affinity::Kind;
    let kind = match Kind::try_from(affinity.kind) {
        Ok(Kind::Unspecified | Kind::None) => AffinityKind::None,
        Ok(Kind::Cookie) => AffinityKind::Cookie,
        Ok(Kind::Header) => AffinityKind::Header,
        Err(_unknown) => {
            violations.push(
                format!("{field}.affinity.kind"),
                format!(
                    "{} is not a kind: give KIND_NONE, KIND_COOKIE or KIND_HEADER",
                    affinity.kind
                ),
            );
            AffinityKind::None
        }
    };
    AffinityInput {
        kind,
        header: affinity.header,
    }
}
