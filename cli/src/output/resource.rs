//! How each resource looks: a row of a list, a page of its own, and the lines of a failure.
//!
//! Pure. Whatever a container, an engine or a person wrote is cleaned before it is placed.

use cless_proto::v1 as pb;
use pb::readiness_probe::Kind as Probe;

use super::table::{Page, View};
use super::{table, text};

/// A message of the API that can be shown.
pub(crate) trait Resource: prost::Message {
    /// Its full protobuf name.
    const MESSAGE: &'static str;
    /// What several are called.
    const PLURAL: &'static str;
    /// The heading of a list.
    const COLUMNS: &'static [&'static str];

    /// Its resource name.
    fn name(&self) -> &str;
    /// Its row of a list.
    fn row(&self, view: &View) -> Vec<String>;
    /// Its own page.
    fn detail(&self, view: &View) -> String;
}

/// `STATE_NO_TRAFFIC` reads `NO_TRAFFIC`.
fn short(name: &'static str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// `v2=90 v3=10:canary`, as `traffic set` takes it.
pub(crate) fn targets_line(targets: &[pb::TrafficTarget]) -> String {
    let target = |t: &pb::TrafficTarget| {
        let tag = if t.tag.is_empty() {
            String::new()
        } else {
            format!(":{}", text::clean(&t.tag))
        };
        format!("v{}={}{tag}", t.version, t.percent)
    };
    text::or_dash(targets.iter().map(target).collect::<Vec<_>>().join(" "))
}

/// `hello: v2=100 -> v2=90 v3=10`.
pub(crate) fn change_line(
    service: &str,
    before: &[pb::TrafficTarget],
    after: &[pb::TrafficTarget],
) -> String {
    let name = |targets: &[pb::TrafficTarget]| match targets {
        [] => "no traffic".to_owned(),
        targets => targets_line(targets),
    };
    format!("{service}: {} -> {}", name(before), name(after))
}

impl Resource for pb::Service {
    const MESSAGE: &'static str = "cless.v1.Service";
    const PLURAL: &'static str = "services";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATE", "URL", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            text::id(&self.name),
            short(self.state().as_str_name(), "STATE_"),
            text::url(&view.proxy, &text::clean(&self.default_host)),
            text::age(view.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, view: &View) -> String {
        let labels = self
            .labels
            .iter()
            .map(|(k, v)| text::clean(&format!("{k}={v}")));
        let hosts = self.hosts.iter().map(|host| text::clean(host));
        let mut page = Page::default();
        page.line("Name", text::id(&self.name))
            .line("State", short(self.state().as_str_name(), "STATE_"))
            .line(
                "URL",
                text::url(&view.proxy, &text::clean(&self.default_host)),
            )
            .line("More hosts", hosts.collect::<Vec<_>>().join(", "))
            .line("Labels", labels.collect::<Vec<_>>().join(", "))
            .line("Created", text::time(self.create_time.as_ref()))
            .line("Updated", text::time(self.update_time.as_ref()))
            .line("Etag", text::clean(&self.etag));
        if let Some(settings) = &self.settings {
            page.section("Settings").block(&settings_lines(settings));
        }
        page.finish()
    }
}

/// Each under the name of its flag.
fn settings_lines(settings: &pb::ServiceSettings) -> String {
    let number = |value: Option<u32>| value.map(|n| n.to_string()).unwrap_or_default();
    let flag = |value: Option<bool>| value.map(|on| on.to_string()).unwrap_or_default();
    let time = |value: Option<&prost_types::Duration>| text::proto_duration(value);
    let affinity = settings
        .affinity
        .as_ref()
        .map_or_else(String::new, |affinity| match affinity.kind() {
            pb::affinity::Kind::Cookie => "cookie".to_owned(),
            pb::affinity::Kind::Header => format!("header:{}", text::clean(&affinity.header)),
            pb::affinity::Kind::None | pb::affinity::Kind::Unspecified => "none".to_owned(),
        });
    let pause_after = match &settings.pause_after {
        Some(after) => time(Some(after)),
        None => "off".to_owned(),
    };
    Page::default()
        .line("min-instances", number(settings.min_instances))
        .line("max-instances", number(settings.max_instances))
        .line("concurrency", number(settings.concurrency))
        .line("idle-timeout", time(settings.idle_timeout.as_ref()))
        .line("pause-after", pause_after)
        .line(
            "cold-start-timeout",
            time(settings.cold_start_timeout.as_ref()),
        )
        .line("request-timeout", time(settings.request_timeout.as_ref()))
        .line("queue-limit", number(settings.queue_limit))
        .line("affinity", affinity)
        .line("version-header", flag(settings.version_header))
        .line("server-timing", flag(settings.server_timing))
        .finish()
}

/// The state of the last proof; `-` if never asked.
fn proof(version: &pb::Version) -> String {
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
        &["VERSION", "IMAGE", "TRAFFIC", "TAGS", "PROOF", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, view: &View) -> Vec<String> {
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
            proof(self),
            text::age(view.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, view: &View) -> String {
        let spec = self.spec.clone().unwrap_or_default();
        let cores = format!("{}", f64::from(spec.cpu_millis) / 1000.0);
        let port = if spec.port == 0 {
            "from the image".to_owned()
        } else {
            spec.port.to_string()
        };
        let words = |words: &[String]| text::clean(&words.join(" "));
        let mut page = Page::default();
        page.line("Name", text::clean(&self.name))
            .line("Image", text::clean(&spec.image))
            .line("Digest", text::clean(&self.image_digest))
            .line("Traffic", format!("{}%", self.percent))
            .line("Tags", text::clean(&self.tags.join(", ")))
            .line("Port", port)
            .line("Command", words(&spec.command))
            .line("Args", words(&spec.args))
            .line("CPU", cores)
            .line("Memory", text::size(spec.memory_bytes))
            .line("Readiness", readiness(&spec))
            .line(
                "Pull",
                short(spec.pull_policy().as_str_name(), "PULL_POLICY_").to_lowercase(),
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
        self.proof_section(&mut page);
        for node in self.status.iter().flat_map(|status| &status.nodes) {
            page.section(&format!("On {}", text::clean(&node.node)));
            page.block(&node_lines(node, view));
        }
        page.finish()
    }
}

trait ProofSection {
    fn proof_section(&self, page: &mut Page);
}

impl ProofSection for pb::Version {
    fn proof_section(&self, page: &mut Page) {
        let Some(verification) = &self.verification else {
            return;
        };
        page.section("Proof");
        let mut lines = Page::default();
        lines
            .line("state", proof(self))
            .line("asked", text::time(verification.request_time.as_ref()))
            .line("why", text::clean(&verification.message));
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
}

fn readiness(spec: &pb::VersionSpec) -> String {
    match spec
        .readiness
        .as_ref()
        .and_then(|probe| probe.kind.as_ref())
    {
        Some(Probe::Http(http)) => {
            let or = |status, default| if status == 0 { default } else { status };
            let (low, high) = (or(http.status_min, 200), or(http.status_max, 399));
            format!("GET {} answers {low}-{high}", text::clean(&http.path))
        }
        Some(Probe::Tcp(_)) | None => "a TCP connect to the port".to_owned(),
    }
}

fn node_lines(node: &pb::NodeVersionStatus, view: &View) -> String {
    let mut lines = Page::default();
    lines.line("pulling", text::clean(&node.pull_progress));
    if let Some(start) = &node.last_cold_start {
        let ago = text::age(view.now, start.time.as_ref());
        lines.line("last cold start", format!("{} ({ago} ago)", phases(start)));
    }
    if node.failures > 0 {
        let until = node.backoff_until.as_ref();
        let wait = until
            .map(|t| format!(", none is tried before {t}"))
            .unwrap_or_default();
        lines.line("failed starts", format!("{} in a row{wait}", node.failures));
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

/// `nodes/local: the container ended (exit code 3, out of memory)` and its log, indented.
fn failure_text(node: &str, failure: &pb::StartFailure) -> String {
    let what = match failure.message.as_str() {
        "" => match failure.reason() {
            pb::start_failure::Reason::Image => "the image cannot be had",
            pb::start_failure::Reason::Engine => "the engine refused to start it",
            pb::start_failure::Reason::Exited => "the container ended before it was ready",
            pb::start_failure::Reason::NotReady => "it did not become ready in time",
            pb::start_failure::Reason::Unspecified => "it did not start",
        },
        message => message,
    };
    let code = failure.exit_code.map(|code| format!("exit code {code}"));
    let oom = failure
        .oom_killed
        .then(|| "out of memory: give it more with --memory".to_owned());
    // The message may have said so already.
    let facts = [code, oom]
        .into_iter()
        .flatten()
        .filter(|fact| !what.contains(fact.as_str()));
    let facts: Vec<String> = facts.collect();
    let mut line = String::new();
    if !node.is_empty() {
        line = format!("{}: ", text::clean(node));
    }
    line.push_str(&text::clean(what));
    if !facts.is_empty() {
        line.push_str(&format!(" ({})", facts.join(", ")));
    }
    for log in &failure.log_tail {
        line.push_str(&format!("\n  | {}", text::clean(log)));
    }
    line
}

/// Why a version is not proved: one entry a node, its log in further lines; or the plane's message.
pub(crate) fn failure_lines(version: &pb::Version) -> Vec<String> {
    let Some(verification) = &version.verification else {
        return Vec::new();
    };
    let failed = |n: &&pb::NodeVerification| n.state() == pb::verification::State::Failed;
    let nodes = verification.nodes.iter().filter(failed);
    let mut lines: Vec<String> = nodes
        .map(|node| failure_text(&node.node, &node.failure.clone().unwrap_or_default()))
        .collect();
    let pending = |n: &&pb::NodeVerification| n.state() == pb::verification::State::Pending;
    for node in verification.nodes.iter().filter(pending) {
        lines.push(format!("{}: not ready in time", text::clean(&node.node)));
    }
    if lines.is_empty() && !verification.message.is_empty() {
        lines.push(text::clean(&verification.message));
    }
    lines
}

impl Resource for pb::Traffic {
    const MESSAGE: &'static str = "cless.v1.Traffic";
    const PLURAL: &'static str = "traffic";
    const COLUMNS: &'static [&'static str] = &["NAME", "REVISION", "TARGETS", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            text::clean(&self.name),
            self.revision.to_string(),
            targets_line(&self.targets),
            text::age(view.now, self.update_time.as_ref()),
        ]
    }

    /// The targets are the page; an empty one still has its heading.
    fn detail(&self, _view: &View) -> String {
        let rows = self.targets.iter().map(|target| {
            vec![
                format!("v{}", target.version),
                format!("{}%", target.percent),
                text::or_dash(text::clean(&target.tag)),
            ]
        });
        table::table(&["VERSION", "TRAFFIC", "TAG"], rows)
    }
}

impl Resource for pb::TrafficRevision {
    const MESSAGE: &'static str = "cless.v1.TrafficRevision";
    const PLURAL: &'static str = "traffic revisions";
    const COLUMNS: &'static [&'static str] = &["REVISION", "TARGETS", "ACTOR", "REASON", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, view: &View) -> Vec<String> {
        let reason = text::clean(&self.reason);
        let reason = match (self.rolled_back_from, reason.as_str()) {
            (0, _) => text::or_dash(reason),
            (from, "") => format!("rollback to {from}"),
            (from, _) => format!("rollback to {from}: {reason}"),
        };
        vec![
            self.number.to_string(),
            targets_line(&self.targets),
            text::or_dash(text::clean(&self.actor)),
            reason,
            text::age(view.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, view: &View) -> String {
        table::table(Self::COLUMNS, [self.row(view)])
    }
}

impl Resource for pb::Node {
    const MESSAGE: &'static str = "cless.v1.Node";
    const PLURAL: &'static str = "nodes";
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "REVISION",
        "LAG",
        "INSTANCES",
        "ENGINE",
        "NOTES",
        "REPORTED",
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, view: &View) -> Vec<String> {
        let notes = self.warnings.len() + self.quarantined.len();
        let notes = notes + usize::from(!self.nack_reason.is_empty());
        vec![
            text::id(&self.name),
            short(self.state().as_str_name(), "STATE_"),
            self.applied_revision.to_string(),
            self.lag.to_string(),
            self.instances.to_string(),
            text::or_dash(text::clean(&self.engine)),
            if notes == 0 {
                "-".to_owned()
            } else {
                format!("{notes}: see node get")
            },
            text::age(view.now, self.report_time.as_ref()),
        ]
    }

    fn detail(&self, _view: &View) -> String {
        let mut page = Page::default();
        page.line("Name", text::id(&self.name))
            .line("Id", text::clean(&self.id))
            .line("State", short(self.state().as_str_name(), "STATE_"))
            .line(
                "Revision",
                format!("{} ({} behind)", self.applied_revision, self.lag),
            )
            .line("Instances", self.instances.to_string())
            .line("Engine", text::or_dash(text::clean(&self.engine)))
            .line("Program", text::clean(&self.version))
            .line("Connected", text::time(self.connect_time.as_ref()))
            .line("Reported", text::time(self.report_time.as_ref()))
            .line("Refused", text::clean(&self.nack_reason));
        if !self.warnings.is_empty() {
            let lines = self.warnings.iter().map(|warning| text::clean(warning));
            page.section("Warnings")
                .block(&lines.collect::<Vec<_>>().join("\n"));
        }
        if !self.quarantined.is_empty() {
            let lines = self.quarantined.iter();
            let lines = lines.map(|q| text::clean(&format!("{}: {}", q.service, q.reason)));
            page.section("Routes kept at their last good value")
                .block(&lines.collect::<Vec<_>>().join("\n"));
        }
        page.finish()
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

    fn row(&self, view: &View) -> Vec<String> {
        let start = self.cold_start.as_ref();
        vec![
            text::clean(self.name.split('/').nth(1).unwrap_or_default()),
            text::id(&self.name),
            text::id(&self.service),
            format!("v{}", self.version),
            short(self.state().as_str_name(), "STATE_"),
            self.in_flight.to_string(),
            text::age(view.now, self.create_time.as_ref()),
            start.map_or_else(|| "-".to_owned(), phases),
        ]
    }

    fn detail(&self, view: &View) -> String {
        table::table(Self::COLUMNS, [self.row(view)])
    }
}
