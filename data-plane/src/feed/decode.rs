//! Decodes the bytes of a route into a [`Route`]. This is the only place that validates one.
//!
//! Law 10: no input causes a panic. Absent fields take the contract's default. An invalid field is
//! an error that names it, and its route is quarantined.

mod spec;

use crate::route::{
    Affinity, Route, Settings, Slots, TagRoute, VerifyOrder, Version, VersionKey, normalize,
};
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Upper bound of all durations in settings, so that later additions to a clock cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct Error {
    /// Path of the field in `cless.v1.Route`.
    field: String,
    problem: String,
}

impl Error {
    fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// Prefixes the path with the field that contains it.
    fn within(mut self, outer: impl Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// Interned settings: equal settings of many services share one allocation.
#[derive(Debug, Default)]
pub(crate) struct SharedSettings(HashSet<Arc<Settings>>);

impl SharedSettings {
    fn share(&mut self, settings: Settings) -> Arc<Settings> {
        if let Some(known) = self.0.get(&settings) {
            return known.clone();
        }
        let settings = Arc::new(settings);
        self.0.insert(settings.clone());
        settings
    }
}

/// Decodes and validates the route of the service `uid`.
pub(crate) fn route(
    uid: &str,
    bytes: &[u8],
    settings: &mut SharedSettings,
) -> Result<Route, Error> {
    let route = pb::Route::decode(bytes).map_err(|error| Error::new("route", error))?;
    if route.service.is_empty() {
        return Err(Error::new("service", "is empty"));
    }
    if route.service_uid != uid {
        return Err(Error::new(
            "service_uid",
            "is not the uid that the route was sent under",
        ));
    }
    let service: Arc<str> = route.service.into();
    let service_uid: Arc<str> = route.service_uid.into();
    let shared = route
        .settings
        .ok_or_else(|| Error::new("settings", "is missing"))?;
    let shared =
        settings.share(decode_settings(&shared).map_err(|error| error.within("settings"))?);

    let host: Arc<str> = route.hosts.first().map_or("", String::as_str).into();
    let mut versions: Vec<Arc<Version>> = Vec::with_capacity(route.versions.len());
    for (at, version) in route.versions.into_iter().enumerate() {
        let version = decode_version(version, &service, &service_uid, &host)
            .map_err(|error| error.within(format_args!("versions[{at}]")))?;
        if versions
            .last()
            .is_some_and(|last| last.key.number >= version.key.number)
        {
            return Err(Error::new(
                format!("versions[{at}].number"),
                "is not in ascending order",
            ));
        }
        versions.push(Arc::new(version));
    }
    let index_of = |number: i32| {
        let number = u32::try_from(number).ok()?;
        versions
            .binary_search_by_key(&number, |version| version.key.number)
            .ok()
    };
    let slots = match &route.slots[..] {
        [] => None,
        numbers => Some(Slots::new(numbers, index_of).map_err(|error| Error::new("slots", error))?),
    };

    let mut seen = HashSet::new();
    let mut hosts = Vec::with_capacity(route.hosts.len());
    for (at, host) in route.hosts.iter().enumerate() {
        hosts.push(decode_host(host, &mut seen, || format!("hosts[{at}]"))?);
    }
    let mut tags: Vec<TagRoute> = Vec::with_capacity(route.tags.len());
    for (at, tag) in route.tags.iter().enumerate() {
        let host = decode_host(&tag.host, &mut seen, || format!("tags[{at}].host"))?;
        let version = index_of(tag.version)
            .and_then(|at| versions.get(at))
            .ok_or_else(|| {
                let problem = format!("{} is not among the versions", tag.version);
                Error::new(format!("tags[{at}].version"), problem)
            })?;
        if tag.tag.is_empty() || tags.iter().any(|other| *other.tag == tag.tag) {
            return Err(Error::new(
                format!("tags[{at}].tag"),
                "is empty or given twice",
            ));
        }
        tags.push(TagRoute {
            tag: tag.tag.as_str().into(),
            host,
            version: version.clone(),
        });
    }
    Ok(Route {
        service,
        service_uid,
        hosts: hosts.into(),
        tags: tags.into(),
        settings: shared,
        versions,
        slots,
    })
}

fn decode_host(
    host: &str,
    seen: &mut HashSet<Arc<str>>,
    field: impl Fn() -> String,
) -> Result<Arc<str>, Error> {
    let normal = normalize(host).map_err(|error| Error::new(field(), error))?;
    if normal != host {
        return Err(Error::new(
            field(),
            "is not lower-case without port and trailing dot",
        ));
    }
    let host: Arc<str> = host.into();
    if seen.insert(host.clone()) {
        Ok(host)
    } else {
        Err(Error::new(field(), "is given twice"))
    }
}

fn decode_version(
    version: pb::RouteVersion,
    service: &Arc<str>,
    service_uid: &Arc<str>,
    host: &Arc<str>,
) -> Result<Version, Error> {
    let number = u32::try_from(version.number)
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| Error::new("number", "is not positive"))?;
    let is_image_id = |id: &str| {
        id.strip_prefix("sha256:")
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !version.image_id.is_empty() && !is_image_id(&version.image_id) {
        return Err(Error::new(
            "image_id",
            "is not an image id, as in sha256:ab12",
        ));
    }
    if version.uid.is_empty() {
        return Err(Error::new("uid", "is empty"));
    }
    let spec = version
        .spec
        .ok_or_else(|| Error::new("spec", "is missing"))?;
    let verify = match version.verify {
        Some(order) => Some(decode_verify(order).map_err(|error| error.within("verify"))?),
        None => None,
    };
    Ok(Version {
        key: VersionKey {
            service_uid: service_uid.clone(),
            number,
        },
        uid: version.uid.into(),
        service: service.clone(),
        host: host.clone(),
        spec: spec::decode(spec).map_err(|error| error.within("spec"))?,
        image_digest: Some(version.image_digest).filter(|digest| !digest.is_empty()),
        image_id: Some(version.image_id).filter(|id| !id.is_empty()),
        image_generation: version.image_generation,
        verify,
    })
}

fn decode_verify(order: pb::VerifyOrder) -> Result<VerifyOrder, Error> {
    if order.id.is_empty() {
        return Err(Error::new("id", "is empty"));
    }
    let deadline = order
        .deadline
        .and_then(|deadline| SystemTime::try_from(deadline).ok())
        .ok_or_else(|| Error::new("deadline", "is missing or no time"))?;
    Ok(VerifyOrder {
        id: order.id,
        deadline,
    })
}

fn decode_settings(settings: &pb::ServiceSettings) -> Result<Settings, Error> {
    let default = Settings::default();
    let max_instances = settings.max_instances.unwrap_or(default.max_instances);
    if max_instances == 0 {
        return Err(Error::new("max_instances", "is 0"));
    }
    let min_instances = settings.min_instances.unwrap_or(default.min_instances);
    if min_instances > max_instances {
        return Err(Error::new("min_instances", "is more than max_instances"));
    }
    let concurrency = settings.concurrency.unwrap_or(default.concurrency);
    if concurrency == 0 {
        return Err(Error::new("concurrency", "is 0"));
    }
    let idle_timeout =
        duration("idle_timeout", settings.idle_timeout)?.unwrap_or(default.idle_timeout);
    let pause_after = duration("pause_after", settings.pause_after)?;
    if pause_after.is_some_and(|after| after >= idle_timeout) {
        return Err(Error::new("pause_after", "is not under idle_timeout"));
    }
    Ok(Settings {
        min_instances,
        max_instances,
        concurrency,
        idle_timeout,
        pause_after,
        cold_start_timeout: duration("cold_start_timeout", settings.cold_start_timeout)?
            .unwrap_or(default.cold_start_timeout),
        request_timeout: duration("request_timeout", settings.request_timeout)?
            .unwrap_or(default.request_timeout),
        total_timeout: duration("total_timeout", settings.total_timeout)?,
        queue_limit: settings.queue_limit.unwrap_or(default.queue_limit),
        affinity: match &settings.affinity {
            Some(affinity) => decode_affinity(affinity)?,
            None => Affinity::None,
        },
        version_header: settings.version_header.unwrap_or(default.version_header),
        server_timing: settings.server_timing.unwrap_or(default.server_timing),
    })
}

fn decode_affinity(affinity: &pb::Affinity) -> Result<Affinity, Error> {
    use pb::affinity::Kind;
    match Kind::try_from(affinity.kind) {
        Ok(Kind::Unspecified | Kind::None) => Ok(Affinity::None),
        Ok(Kind::Cookie) => Ok(Affinity::Cookie),
        Ok(Kind::Header) => http::HeaderName::from_bytes(affinity.header.as_bytes())
            .map(Affinity::Header)
            .map_err(|error| Error::new("affinity.header", error)),
        Err(unknown) => Err(Error::new("affinity.kind", unknown)),
    }
}

fn duration(field: &str, value: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(value) = value else { return Ok(None) };
    let value = Duration::try_from(value).map_err(|error| Error::new(field, error))?;
    if value.is_zero() || value > MAX_DURATION {
        return Err(Error::new(field, "is not between 1 ns and 30 days"));
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
