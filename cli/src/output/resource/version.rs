//! A version: its specification, its verification and its status on each node.

use cless_proto::v1 as pb;

mod changes;
mod failure;
mod image;
mod spec;

pub(crate) use changes::spec_changes;
pub(crate) use image::{resolution, resolution_changed};

use super::{Resource, short};
use crate::output::table::{DetailPage, RenderContext};
use crate::text;
use failure::failure_text;

/// The state of the last verification; `-` if there was none.
fn verification_state(version: &pb::Version) -> String {
    match &version.verification {
        Some(v) if v.state() != pb::verification::State::Unspecified => {
            short(v.state().as_str_name(), "STATE_")
        }
        _ => "-".to_owned(),
    }
}

impl Resource for pb::Version {
    const MESSAGE: &'static str = "cless.v1.Version";
    const PLURAL: &'static str = "versions";
    const COLUMNS: &'static [&'static str] =
        &["VERSION", "IMAGE", "TRAFFIC", "TAGS", "VERIFICATION", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        let image = self
            .spec
            .as_ref()
            .map(|spec| text::clean(&spec.image))
            .unwrap_or_default();
        vec![
            format!("v{}", self.number),
            image,
            format!("{}%", self.percent),
            text::or_dash(text::clean(&self.tags.join(","))),
            verification_state(self),
            text::age(context.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, context: &RenderContext) -> String {
        let spec = self.spec.clone().unwrap_or_default();
        let cores = format!("{}", f64::from(spec.cpu_millis) / 1000.0);
        let words = |words: &[String]| text::clean(&words.join(" "));
        let mut page = DetailPage::default();
        page.line("Name", text::clean(&self.name))
            .line("Image", text::clean(&spec.image))
            .line("Digest", text::clean(&self.image_digest));
        image::lines(self, context, &mut page);
        page.line("Traffic", format!("{}%", self.percent))
            .line("Tags", text::clean(&self.tags.join(", ")))
            .line("Port", spec::port(self))
            .line("Command", words(&spec.command))
            .line("Args", words(&spec.args))
            .line("CPU", cores)
            .line("Memory", text::size(spec.memory_bytes));
        spec::limits(&spec, &mut page);
        page.line("Readiness", spec::readiness(&spec))
            .line(
                "Pull",
                short(spec.pull_policy().as_str_name(), "PULL_POLICY_").to_lowercase(),
            )
            .line(
                "Protocol",
                short(spec.protocol().as_str_name(), "PROTOCOL_").to_lowercase(),
            )
            .line("Created", text::time(self.create_time.as_ref()));
        if !spec.env.is_empty() {
            let env = spec
                .env
                .iter()
                .map(|(k, v)| text::clean(&format!("{k}={v}")));
            page.section("Environment")
                .block(&env.collect::<Vec<_>>().join("\n"));
        }
        verification_section(self, &mut page);
        for node in self.status.iter().flat_map(|status| &status.nodes) {
            page.section(&format!("On {}", text::clean(&node.node)));
            page.block(&node_lines(node, context));
        }
        page.finish()
    }
}

fn verification_section(version: &pb::Version, page: &mut DetailPage) {
    let Some(verification) = &version.verification else {
        return;
    };
    page.section("Verification");
    let mut lines = DetailPage::default();
    lines
        .line("state", verification_state(version))
        .line("requested", text::time(verification.request_time.as_ref()))
        .line("message", text::clean(&verification.message));
    for node in &verification.nodes {
        let state = short(node.state().as_str_name(), "STATE_");
        let start = node.cold_start.as_ref().map(phases).unwrap_or_default();
        lines.line(
            &text::clean(&node.node),
            format!("{state} {start}").trim_end(),
        );
    }
    page.block(&lines.finish());
    for node in &verification.nodes {
        if let Some(failure) = &node.failure {
            page.block(&failure_text(&node.node, failure));
        }
    }
}

fn node_lines(node: &pb::NodeVersionStatus, context: &RenderContext) -> String {
    let mut lines = DetailPage::default();
    lines
        .line("pulling", text::clean(&node.pull_progress))
        .line("pinned image", text::clean(&node.image_id));
    if let Some(start) = &node.last_cold_start {
        let ago = text::age(context.now, start.time.as_ref());
        lines.line("last cold start", format!("{} ({ago} ago)", phases(start)));
    }
    if node.failures > 0 {
        let until = node.backoff_until.as_ref();
        let backoff = until
            .map(|t| format!(", next attempt after {t}"))
            .unwrap_or_default();
        lines.line(
            "failed starts",
            format!("{} in a row{backoff}", node.failures),
        );
    }
    let mut lines = lines.finish();
    if let Some(failure) = &node.last_failure {
        lines.push_str("last failure: ");
        lines.push_str(&failure_text("", failure));
        lines.push('\n');
    }
    lines
}

/// `129ms (create 13ms, start 98ms, ready 18ms)`.
fn phases(start: &pb::ColdStart) -> String {
    let phases = [
        ("pull", &start.pull),
        ("queue", &start.queue),
        ("create", &start.create),
        ("start", &start.start),
        ("ready", &start.ready),
    ];
    let parts = phases.iter().filter(|(_, time)| time.is_some());
    let parts = parts.map(|(name, time)| format!("{name} {}", text::proto_duration(time.as_ref())));
    let parts: Vec<String> = parts.collect();
    let total = text::proto_duration(start.total.as_ref());
    if parts.is_empty() {
        total
    } else {
        format!("{total} ({})", parts.join(", "))
    }
}

/// The failures of a verification: one entry per node, with log lines, or the message of the control
/// plane.
pub(crate) fn failure_lines(version: &pb::Version) -> Vec<String> {
    let Some(verification) = &version.verification else {
        return Vec::new();
    };
    use pb::verification::State;
    let in_state = |state| {
        let nodes = verification.nodes.iter();
        nodes.filter(move |node| node.state() == state)
    };
    // A failure explains more than the trouble of a node, so it comes first.
    let failures = in_state(State::Failed).chain(in_state(State::Unverified));
    let mut lines: Vec<String> = failures
        .filter_map(|node| Some(failure_text(&node.node, node.failure.as_ref()?)))
        .collect();
    // Without a reason of its own, a node that has not answered is the reason.
    if lines.is_empty() {
        for node in in_state(State::Pending) {
            lines.push(format!("{}: not ready in time", text::clean(&node.node)));
        }
    }
    if lines.is_empty() && !verification.message.is_empty() {
        lines.push(text::clean(&verification.message));
    }
    lines
}
