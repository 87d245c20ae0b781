//! Tokens and entries of the audit log.

use cless_proto::v1 as pb;

use super::{Resource, short};
use crate::output::table::{DetailPage, RenderContext};
use crate::text;

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
    const COLUMNS: &'static [&'static str] =
        &["TIME", "PRINCIPAL", "METHOD", "RESOURCE", "CHANGES"];

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
            text::or_dash(text::clean(&summary(self))),
        ]
    }

    fn detail(&self, _context: &RenderContext) -> String {
        let mut page = DetailPage::default();
        page.line("Time", text::time(self.time.as_ref()))
            .line("Principal", text::clean(&self.principal))
            .line("Peer", text::clean(&self.peer))
            .line("Method", text::clean(&self.method))
            .line("Resource", text::clean(&self.resource))
            .line("Changes", text::clean(&summary(self)));
        page.finish()
    }
}

fn whole_seconds(time: &prost_types::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: 0,
    }
}

/// The changes, or the refusal.
fn summary(entry: &pb::AuditEntry) -> String {
    if entry.code != 0 {
        let times = match entry.count {
            0 | 1 => String::new(),
            count => format!(" ({count} times)"),
        };
        return format!("refused{times}: {}", entry.message);
    }
    let changes = entry.changes.iter().map(|change| {
        let side = |value: &str| match value {
            "" => "-".to_owned(),
            value => value.to_owned(),
        };
        match change.before.as_str() {
            "" => format!("{}={}", change.field, change.after),
            before => format!("{}: {} -> {}", change.field, before, side(&change.after)),
        }
    });
    changes.collect::<Vec<_>>().join(", ")
}
