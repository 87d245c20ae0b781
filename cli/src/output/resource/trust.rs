//! Tokens and entries of the audit log.

use cless_proto::bounds::clipped;
use cless_proto::v1 as pb;

use super::{Resource, short};
use crate::output::table::{DetailPage, RenderContext};
use crate::text;

/// Changes of an entry that are shown.
const CHANGES_MAX: usize = 20;
/// Bytes of a value that are shown.
const VALUE_MAX: usize = 80;

impl Resource for pb::Token {
    const MESSAGE: &'static str = "cless.v1.Token";
    const PLURAL: &'static str = "tokens";
    const COLUMNS: &'static [&'static str] = &[
        "ID",
        "ROLE",
        "SERVICES",
        "EXPIRES",
        "LAST USE",
        "DESCRIPTION",
        "AGE",
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        let last_use = self.last_use_time.as_ref().map_or_else(
            || "never".to_owned(),
            |time| format!("{} ago", text::age(context.now, Some(time))),
        );
        vec![
            text::id(&self.name),
            role(self),
            services(self),
            expiry(self),
            last_use,
            text::or_dash(text::clean(&self.description)),
            text::age(context.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, _context: &RenderContext) -> String {
        let hosts = self.scope.iter().flat_map(|scope| &scope.hosts);
        let hosts: Vec<_> = hosts.map(|host| text::clean(host)).collect();
        let mut page = DetailPage::default();
        page.line("Id", text::id(&self.name))
            .line("Role", role(self))
            .line("Services", services(self))
            .line("Hosts", hosts.join(" "))
            .line("Description", text::clean(&self.description))
            .line("Created", text::time(self.create_time.as_ref()))
            .line("By", text::clean(&self.creator))
            .line("Expires", expiry(self))
            .line("Last use", text::time(self.last_use_time.as_ref()));
        page.finish()
    }
}

fn role(token: &pb::Token) -> String {
    short(token.role().as_str_name(), "ROLE_").to_ascii_lowercase()
}

/// The services that a token is limited to.
fn services(token: &pb::Token) -> String {
    match &token.scope {
        None => "all".to_owned(),
        Some(scope) => text::clean(&scope.services.join(" ")),
    }
}

fn expiry(token: &pb::Token) -> String {
    if let Some(time) = &token.revoke_time {
        return format!("revoked {}", text::time(Some(time)));
    }
    match &token.expire_time {
        None => "never".to_owned(),
        time => text::time(time.as_ref()),
    }
}

/// A new token. Its page is the secret alone, for a shell.
impl Resource for pb::CreateTokenResponse {
    const MESSAGE: &'static str = "cless.v1.CreateTokenResponse";
    const PLURAL: &'static str = "tokens";
    const COLUMNS: &'static [&'static str] = &["TOKEN"];

    fn name(&self) -> &str {
        self.token.as_ref().map_or("", |token| &token.name)
    }

    fn row(&self, _context: &RenderContext) -> Vec<String> {
        vec![text::clean(&self.secret)]
    }

    fn detail(&self, _context: &RenderContext) -> String {
        format!("{}\n", text::clean(&self.secret))
    }
}

impl Resource for pb::AuditEntry {
    const MESSAGE: &'static str = "cless.v1.AuditEntry";
    const PLURAL: &'static str = "entries of the audit log";
    const COLUMNS: &'static [&'static str] = &["TIME", "PRINCIPAL", "METHOD", "RESOURCE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, _context: &RenderContext) -> Vec<String> {
        let method = self.method.rsplit('/').next().unwrap_or_default();
        let principal = match self.principal.as_str() {
            "" => format!("nobody at {}", self.peer),
            known => known.to_owned(),
        };
        vec![
            text::time(self.time.as_ref().map(whole_seconds).as_ref()),
            text::clean(&principal),
            text::clean(method),
            text::or_dash(text::clean(&self.resource)),
        ]
    }

    /// A line, and an indented one for each change.
    fn detail(&self, context: &RenderContext) -> String {
        let mut page = format!("{}\n", self.row(context).join("  "));
        for line in summary(self) {
            page.push_str(&format!("  {}\n", text::clean(&line)));
        }
        page
    }
}

fn whole_seconds(time: &prost_types::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: 0,
    }
}

/// The changes, or the refusal.
fn summary(entry: &pb::AuditEntry) -> Vec<String> {
    if entry.code != 0 {
        let times = match entry.count {
            0 | 1 => String::new(),
            count => format!(" ({count} times)"),
        };
        return vec![format!("refused{times}: {}", entry.message)];
    }
    let side = |value: &str| match value {
        "" => "-".to_owned(),
        value => clipped(value, VALUE_MAX).into_owned(),
    };
    let mut lines: Vec<String> = entry
        .changes
        .iter()
        .take(CHANGES_MAX)
        .map(|change| {
            let (before, after) = (side(&change.before), side(&change.after));
            format!("{}: {before} -> {after}", change.field)
        })
        .collect();
    let more = entry.changes.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more: see -o json"));
    }
    lines
}
