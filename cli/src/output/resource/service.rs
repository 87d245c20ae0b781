//! A service and its settings.

use cless_proto::v1 as pb;

use super::{Resource, short};
use crate::output::table::{DetailPage, RenderContext};
use crate::text;

impl Resource for pb::Service {
    const MESSAGE: &'static str = "cless.v1.Service";
    const PLURAL: &'static str = "services";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATE", "URL", "AGE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, context: &RenderContext) -> Vec<String> {
        vec![
            text::id(&self.name),
            short(self.state().as_str_name(), "STATE_"),
            text::url(&context.proxy, &text::clean(&self.default_host)),
            text::age(context.now, self.create_time.as_ref()),
        ]
    }

    fn detail(&self, context: &RenderContext) -> String {
        let labels = self
            .labels
            .iter()
            .map(|(k, v)| text::clean(&format!("{k}={v}")));
        let hosts = self.hosts.iter().map(|host| text::clean(host));
        let mut page = DetailPage::default();
        page.line("Name", text::id(&self.name))
            .line("State", short(self.state().as_str_name(), "STATE_"))
            .line(
                "URL",
                text::url(&context.proxy, &text::clean(&self.default_host)),
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

/// One line per setting, under the name of its flag.
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
    let or_off = |value: Option<&prost_types::Duration>| match value {
        Some(after) => time(Some(after)),
        None => "off".to_owned(),
    };
    DetailPage::default()
        .line("min-instances", number(settings.min_instances))
        .line("max-instances", number(settings.max_instances))
        .line("concurrency", number(settings.concurrency))
        .line("idle-timeout", time(settings.idle_timeout.as_ref()))
        .line("pause-after", or_off(settings.pause_after.as_ref()))
        .line(
            "cold-start-timeout",
            time(settings.cold_start_timeout.as_ref()),
        )
        .line("request-timeout", time(settings.request_timeout.as_ref()))
        .line("total-timeout", or_off(settings.total_timeout.as_ref()))
        .line("queue-limit", number(settings.queue_limit))
        .line("affinity", affinity)
        .line("version-header", flag(settings.version_header))
        .line("server-timing", flag(settings.server_timing))
        .finish()
}
