//! The screen of `cless status`. Pure: the time is an argument.

use cless_proto::v1 as pb;
use serde::Serialize;

use super::json::ProtoJson;
use super::resource::traffic::targets_line;
use super::resource::{Resource, short};
use super::table::{RenderContext, table};
use crate::text;

/// The state of services and nodes.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Each service with its traffic.
    pub(crate) services: Vec<(pb::Service, pb::Traffic)>,
    /// Versions of the only service; empty for several services.
    pub(crate) versions: Vec<pb::Version>,
    pub(crate) instances: Vec<pb::Instance>,
    pub(crate) nodes: Vec<pb::Node>,
    /// Whether more services exist than are listed.
    pub(crate) is_cut: bool,
}

/// The state for programs.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    services: Vec<ServiceObject>,
    versions: Vec<ProtoJson>,
    instances: Vec<ProtoJson>,
    nodes: Vec<ProtoJson>,
}

#[derive(Debug, Serialize)]
struct ServiceObject {
    service: ProtoJson,
    traffic: ProtoJson,
}

impl Status {
    pub(super) fn to_object(&self) -> Object {
        let service = |(service, traffic): &(pb::Service, pb::Traffic)| ServiceObject {
            service: ProtoJson::new(service),
            traffic: ProtoJson::new(traffic),
        };
        Object {
            services: self.services.iter().map(service).collect(),
            versions: self.versions.iter().map(ProtoJson::new).collect(),
            instances: self.instances.iter().map(ProtoJson::new).collect(),
            nodes: self.nodes.iter().map(ProtoJson::new).collect(),
        }
    }

    pub(super) fn names(&self) -> String {
        let services = self.services.iter().map(|(service, _)| service.name());
        let nodes = self.nodes.iter().map(Resource::name);
        services.chain(nodes).map(super::name_line).collect()
    }

    pub(super) fn screen(&self, context: &RenderContext) -> String {
        let mut sections = Vec::new();
        if self.services.is_empty() {
            sections.push("no services\n".to_owned());
        } else {
            let columns = ["SERVICE", "STATE", "TRAFFIC", "INSTANCES", "URL"];
            let rows = self.services.iter().map(|(service, traffic)| {
                let instances = self.instances.iter();
                let instances = instances.filter(|instance| instance.service == service.name);
                vec![
                    text::id(&service.name),
                    short(service.state().as_str_name(), "STATE_"),
                    targets_line(&traffic.targets),
                    instances.count().to_string(),
                    text::url(&context.proxy, &text::clean(&service.default_host)),
                ]
            });
            let mut lines = table(&columns, rows);
            for (service, _) in &self.services {
                if !service.state_message.is_empty() {
                    let (name, why) =
                        (text::id(&service.name), text::clean(&service.state_message));
                    lines.push_str(&format!("  {name}: {why}\n"));
                }
            }
            if self.is_cut {
                lines.push_str("  and more: cless service list\n");
            }
            sections.push(lines);
        }
        if !self.versions.is_empty() {
            let rows = self.versions.iter().map(|version| version.row(context));
            sections.push(table(pb::Version::COLUMNS, rows));
        }
        if let [_] = self.services.as_slice()
            && !self.instances.is_empty()
        {
            let rows = self.instances.iter().map(|instance| instance.row(context));
            sections.push(table(pb::Instance::COLUMNS, rows));
        }
        if self.nodes.is_empty() {
            sections.push("no nodes\n".to_owned());
        } else {
            let rows = self.nodes.iter().map(|node| node.row(context));
            sections.push(table(pb::Node::COLUMNS, rows));
        }
        sections.join("\n")
    }
}
