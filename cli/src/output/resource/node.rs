//! Nodes and instances.

use cless_proto::v1 as pb;

use super::{Resource, short};
use crate::output::table::{self, DetailPage, RenderContext};
use crate::text;

impl Resource for pb::Node {
    const MESSAGE: &'static str = "cless.v1.Node";
    const PLURAL: &'static str = "nodes";
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "LAG",
        "INSTANCES",
        "ENGINE",
        "ISOLATION",
        "NOTES",
        "REPORTED",
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        let notes = self.warnings.len() + self.quarantined.len();
        let notes = notes + usize::from(!self.nack_reason.is_empty());
        let offline = self.disconnect_time.as_ref();
        let offline =
            offline.map(|time| format!("offline for {}", text::age(context.now, Some(time))));
        let drained = self.drained.then(|| "drained".to_owned());
        let more = (notes > 0).then(|| format!("{notes}: see node get"));
        let notes: Vec<_> = offline.into_iter().chain(drained).chain(more).collect();
        vec![
            text::id(&self.name),
            short(self.state().as_str_name(), "STATE_"),
            self.lag.to_string(),
            self.instances.to_string(),
            text::or_dash(text::clean(&self.engine)),
            text::or_dash(isolation(self)),
            text::or_dash(notes.join("; ")),
            text::age(context.now, self.report_time.as_ref()),
        ]
    }

    fn detail(&self, _context: &RenderContext) -> String {
        let mut page = DetailPage::default();
        page.line("Name", text::id(&self.name))
            .line("Id", text::clean(&self.id))
            .line("State", state(self))
            .line(
                "Revision",
                format!("{} ({} behind)", self.applied_revision, self.lag),
            )
            .line("Instances", self.instances.to_string())
            .line("Sandboxes", self.sandboxes.to_string())
            .line("Engine", text::or_dash(text::clean(&self.engine)))
            .line("Runtime", text::clean(&self.runtime))
            .line("Isolation", text::or_dash(isolation(self)))
            .line("Allows", allows(self))
            .line("Release", text::clean(&self.version))
            .line("Certificate", certificate(self))
            .line("Connected", text::time(self.connect_time.as_ref()))
            .line("Offline since", offline_since(self))
            .line("Reported", text::time(self.report_time.as_ref()))
            .line("Rejected", text::clean(&self.nack_reason));
        if let Some(isolation) = self.isolation.as_ref().filter(|i| !i.reason.is_empty()) {
            page.section("Not isolated")
                .block(&text::clean(&isolation.reason));
        }
        if !self.warnings.is_empty() {
            let lines = self.warnings.iter().map(|warning| text::clean(warning));
            page.section("Warnings")
                .block(&lines.collect::<Vec<_>>().join("\n"));
        }
        if !self.quarantined.is_empty() {
            let lines = self.quarantined.iter();
            let lines = lines.map(|q| text::clean(&format!("{}: {}", q.service, q.reason)));
            page.section("Quarantined routes (the last valid route is used)")
                .block(&lines.collect::<Vec<_>>().join("\n"));
        }
        page.finish()
    }
}

/// The rights of versions beyond the default; empty if there are none.
fn allows(node: &pb::Node) -> String {
    let lists = [
        ("capabilities", &node.allowed_capabilities),
        ("egress to", &node.allowed_egress),
    ];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let lists = lists.map(|(what, list)| format!("{what} {}", text::clean(&list.join(", "))));
    lists.collect::<Vec<_>>().join("; ")
}

fn state(node: &pb::Node) -> String {
    let state = short(node.state().as_str_name(), "STATE_");
    if node.drained {
        format!("{state}, drained")
    } else {
        state
    }
}

/// The expiry of the certificate; empty if the node has none.
fn certificate(node: &pb::Node) -> String {
    match &node.certificate_expire_time {
        None => String::new(),
        time => format!("expires {}", text::time(time.as_ref())),
    }
}

/// The time of the disconnect; empty while the node is connected.
fn offline_since(node: &pb::Node) -> String {
    match &node.disconnect_time {
        None => String::new(),
        time => text::time(time.as_ref()),
    }
}

/// The isolation of containers; empty if the node has not reported it.
fn isolation(node: &pb::Node) -> String {
    match node.isolation.as_ref().map(pb::Isolation::state) {
        None | Some(pb::isolation::State::Unspecified) => String::new(),
        Some(state) => short(state.as_str_name(), "STATE_"),
    }
}

impl Resource for pb::CreateJoinTokenResponse {
    const MESSAGE: &'static str = "cless.v1.CreateJoinTokenResponse";
    const PLURAL: &'static str = "join tokens";
    const COLUMNS: &'static [&'static str] = &["TOKEN", "EXPIRES"];

    fn name(&self) -> &str {
        &self.join_token
    }

    fn row(&self, _context: &RenderContext) -> Vec<String> {
        vec![
            text::clean(&self.join_token),
            text::time(self.expire_time.as_ref()),
        ]
    }

    /// The token alone, so that a shell can write it to a file.
    fn detail(&self, _context: &RenderContext) -> String {
        format!("{}\n", text::clean(&self.join_token))
    }
}

impl Resource for pb::Instance {
    const MESSAGE: &'static str = "cless.v1.Instance";
    const PLURAL: &'static str = "instances";
    const COLUMNS: &'static [&'static str] = &[
        "NODE",
        "INSTANCE",
        "SERVICE",
        "VERSION",
        "STATE",
        "IN FLIGHT",
        "AGE",
        "COLD START",
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        let start = self.cold_start.as_ref();
        vec![
            text::clean(self.name.split('/').nth(1).unwrap_or_default()),
            text::id(&self.name),
            text::id(&self.service),
            format!("v{}", self.version),
            short(self.state().as_str_name(), "STATE_"),
            self.in_flight.to_string(),
            text::age(context.now, self.create_time.as_ref()),
            text::proto_duration(start.and_then(|start| start.total.as_ref())),
        ]
    }

    fn detail(&self, context: &RenderContext) -> String {
        table::table(Self::COLUMNS, [self.row(context)])
    }
}
