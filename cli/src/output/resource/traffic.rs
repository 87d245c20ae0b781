//! Traffic and its revisions.

use cless_proto::v1 as pb;

use super::Resource;
use crate::output::table::{self, RenderContext};
use crate::text;

/// `v2=90 v3=10:canary`, in the syntax of `traffic set`.
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

impl Resource for pb::Traffic {
    const MESSAGE: &'static str = "cless.v1.Traffic";
    const PLURAL: &'static str = "traffic";
    const COLUMNS: &'static [&'static str] = &["NAME", "REVISION", "TARGETS", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        vec![
            text::clean(&self.name),
            self.revision.to_string(),
            targets_line(&self.targets),
            text::age(context.now, self.update_time.as_ref()),
        ]
    }

    /// A table of the targets, with a heading even if empty.
    fn detail(&self, _context: &RenderContext) -> String {
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

    fn row(&self, context: &RenderContext) -> Vec<String> {
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
            text::age(context.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, context: &RenderContext) -> String {
        table::table(Self::COLUMNS, [self.row(context)])
    }
}
