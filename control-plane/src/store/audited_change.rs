//! A change of a resource, as the audit log shows it.

use serde_json::{Value, json};

use crate::domain::field_change::diff;
use crate::domain::{FieldChange, Service, ServiceId, Traffic, Version, name};

use super::Error;

/// A change of a resource, for the audit log.
#[derive(Debug)]
pub(super) struct AuditedChange {
    pub(super) resource: String,
    /// Empty: the resource belongs to no service.
    pub(super) service: String,
    pub(super) changes: Vec<FieldChange>,
}

impl AuditedChange {
    /// A change of a resource outside of services.
    pub(super) fn new(resource: String, before: &Value, after: &Value) -> Self {
        Self {
            resource,
            service: String::new(),
            changes: diff(before, after),
        }
    }

    fn within(mut self, service: &ServiceId) -> Self {
        service.as_str().clone_into(&mut self.service);
        self
    }

    /// A created, updated or deleted service.
    pub(super) fn service(
        id: &ServiceId,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> Result<Self, Error> {
        let (before, after) = (view(before, of_service)?, view(after, of_service)?);
        Ok(Self::new(name::service(id), &before, &after).within(id))
    }

    /// A created, changed or deleted version.
    pub(super) fn version(
        known: &Version,
        before: Option<&Version>,
        after: Option<&Version>,
    ) -> Result<Self, Error> {
        let (before, after) = (view(before, of_version)?, view(after, of_version)?);
        let name = name::version(&known.service, known.number);
        Ok(Self::new(name, &before, &after).within(&known.service))
    }

    /// A change of traffic.
    pub(super) fn traffic(before: &Traffic, after: &Traffic) -> Self {
        let name = name::traffic(&after.service);
        Self::new(name, &of_traffic(before), &of_traffic(after)).within(&after.service)
    }
}

fn view<T>(
    resource: Option<&T>,
    show: impl FnOnce(&T) -> Result<Value, serde_json::Error>,
) -> Result<Value, Error> {
    resource
        .map_or(Ok(Value::Null), show)
        .map_err(|error| Error::Database(format!("a value cannot be written: {error}")))
}

fn of_service(service: &Service) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "hosts": serde_json::to_value(&service.hosts)?,
        "settings": serde_json::to_value(&service.settings)?,
        "labels": serde_json::to_value(&service.labels)?,
    }))
}

fn of_version(version: &Version) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "spec": serde_json::to_value(&version.spec)?,
        "image_digest": version.image_digest.as_ref().map(|digest| digest.as_str()),
        "resolved_image": serde_json::to_value(&version.resolved_image)?,
        "image_generation": version.image_generation,
        "verification": serde_json::to_value(&version.verification)?,
    }))
}

fn of_traffic(traffic: &Traffic) -> Value {
    let targets = traffic.split.targets().iter().map(|target| {
        let tag = target.tag.as_ref().map(|tag| tag.as_str());
        let share = json!({ "percent": target.percent.get(), "tag": tag });
        (format!("v{}", target.version), share)
    });
    json!({ "targets": targets.collect::<serde_json::Map<_, _>>() })
}
