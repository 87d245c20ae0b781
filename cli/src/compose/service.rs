//! One service of a compose file as a service of cless with one version.

mod builder;
mod environment;
mod limits;

use cless_proto::capability;
use cless_proto::v1 as pb;
use pb::version_spec::PullPolicy;

use super::plan::{Import, Origins, Remark};
use super::reader::{Cursor, Reader};
use super::unsupported::{self, Lost};
use super::yaml::Value;
use super::{healthcheck, ports, values};
use crate::suggest;
use builder::{Builder, labels};

/// The keys that are imported.
pub(super) const KEYS: &[&str] = &[
    "cap_add",
    "cap_drop",
    "command",
    "cpus",
    "deploy",
    "dns",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "healthcheck",
    "image",
    "init",
    "labels",
    "mem_limit",
    "network_mode",
    "pids_limit",
    "ports",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "shm_size",
    "stop_grace_period",
    "stop_signal",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
];

/// The reason why a service is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// The service is named, or the only one.
    Named,
    /// The service is one of several, none of which is named.
    Default,
}

/// Reads a service; `None` if it is not imported, for which there is a remark.
///
/// # Errors
/// A value that compose refuses too.
pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    at: &Cursor<'_>,
    selection: Selection,
) -> Result<Option<Import>, Remark> {
    let entries = at.entries("a map with `image`")?;
    let entry = |name: &str| {
        entries
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, at)| at)
    };
    if let Some(why) = left_out(&entries, selection) {
        reader.remark(at, &format!("not imported: {why}"));
        return Ok(None);
    }
    let before = reader.remarks();
    let mut builder = Builder::default();
    // Without `init`, compose runs the process as PID 1.
    builder.spec.no_init = true;
    let port = ports::read(reader, entry("ports"), entry("expose"))?;
    if let Some((port, at)) = &port {
        builder.spec.port = (*port).into();
        builder.set("port", at);
    }
    for (key, at) in &entries {
        field(reader, &mut builder, key, at)?;
    }
    environment::read(
        reader,
        &mut builder,
        entry("environment"),
        entry("env_file"),
    )?;
    if let Some(at) = entry("healthcheck") {
        readiness(reader, &mut builder, at)?;
    }
    if builder.settings.max_instances == Some(0) {
        if selection == Selection::Default {
            reader.forget(before);
            let text = "not imported: it has no replicas; name it with --service to import it";
            reader.remark(at, text);
            return Ok(None);
        }
        builder.settings.max_instances = None;
    }
    let id = values::id(name);
    if id != name {
        reader.remark(
            at,
            &format!("imported as `{id}`: a name becomes part of a host name"),
        );
    }
    Ok(Some(Import {
        id,
        spec: builder.spec,
        settings: builder.settings,
        labels: builder.labels,
        origins: Origins {
            by_field: builder.places,
            service: at.error(""),
        },
    }))
}

/// Why a service is not imported, as far as its keys tell.
fn left_out(entries: &[(&str, Cursor<'_>)], selection: Selection) -> Option<&'static str> {
    let has = |name: &str| {
        entries
            .iter()
            .any(|(key, at)| *key == name && !at.is_null())
    };
    if !has("image") {
        return Some(if has("build") {
            "it has `build` and no `image`; build and push the image, and name it in `image`"
        } else {
            "it has no `image`; add it"
        });
    }
    if selection == Selection::Named {
        return None;
    }
    if has("profiles") {
        return Some("it has `profiles`; name it with --service to import it");
    }
    (!has("ports") && !has("expose")).then_some(
        "it has no `ports`, and cless runs HTTP servers; name it with --service if it is one",
    )
}

/// Reads one key; those with an influence on each other are read elsewhere.
fn field(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    key: &str,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    if let Some((when, remedy)) = unsupported::find(key) {
        return lost(reader, when, remedy, at);
    }
    if at.is_null() && KEYS.contains(&key) {
        return Ok(());
    }
    match key {
        "image" => {
            builder.spec.image = reader.text(at)?;
            builder.set("image", at);
        }
        "command" | "entrypoint" => words(reader, builder, key, at)?,
        "user" => {
            builder.spec.user = reader.text(at)?;
            builder.set("user", at);
        }
        "read_only" => builder.spec.read_only_root = reader.boolean(at)?,
        "init" => builder.spec.no_init = !reader.boolean(at)?,
        "stop_signal" => {
            builder.spec.stop_signal = reader.text(at)?;
            builder.set(key, at);
        }
        "stop_grace_period" => {
            let grace = reader.value(at, "a duration such as 1m30s", values::duration)?;
            builder.spec.stop_grace = grace.try_into().ok();
            builder.set("stop_grace", at);
        }
        "pull_policy" => pull_policy(reader, builder, at)?,
        "cap_add" => {
            for item in at.items("a list of capabilities")? {
                builder.set(&format!("cap_add[{}]", builder.spec.cap_add.len()), &item);
                builder.spec.cap_add.push(reader.text(&item)?);
            }
        }
        "cap_drop" => cap_drop(reader, at)?,
        "dns" => {
            for item in at.items_or_one("an IP address, or a list of them")? {
                builder.set(&format!("dns[{}]", builder.spec.dns.len()), &item);
                builder.spec.dns.push(reader.text(&item)?);
            }
        }
        "extra_hosts" => extra_hosts(reader, builder, at)?,
        "labels" => labels(reader, builder, at)?,
        "network_mode" => {
            let mode = reader.text(at)?;
            if !matches!(mode.as_str(), "bridge" | "default") {
                let text =
                    "fixed by the node: remove it, and reach servers on the node by --egress";
                reader.remark(at, text);
            }
        }
        "restart" => {
            if reader.text(at)? == "no" {
                reader.remark(
                    at,
                    "instances start again on the next request: run one-off jobs elsewhere",
                );
            }
        }
        "tmpfs" | "volumes" | "shm_size" | "ulimits" | "mem_limit" | "cpus" | "pids_limit"
        | "scale" | "deploy" => limits::field(reader, builder, key, at)?,
        // Read before or after the others.
        "ports" | "expose" | "environment" | "env_file" | "healthcheck" | "profiles" => {}
        _ if key.starts_with("x-") => {}
        _ => unknown(reader, key, at),
    }
    Ok(())
}

fn lost(reader: &mut Reader<'_>, when: Lost, remedy: &str, at: &Cursor<'_>) -> Result<(), Remark> {
    match when {
        Lost::IfTrue if !reader.boolean(at)? => {}
        Lost::Each => {
            for item in at.items("a list")? {
                // Every container has this option.
                let is_kept = matches!(
                    item.value(),
                    Value::Text(text) if text.trim_end_matches(":true").trim_end_matches("=true") == "no-new-privileges"
                );
                if !is_kept {
                    reader.remark(&item, remedy);
                }
            }
        }
        Lost::Always | Lost::IfTrue => reader.remark(at, remedy),
    }
    Ok(())
}

fn unknown(reader: &mut Reader<'_>, key: &str, at: &Cursor<'_>) {
    let lost = unsupported::KEYS.iter().map(|(key, _, _)| *key);
    let nearest = suggest::nearest(key, KEYS.iter().copied().chain(lost));
    let meant = nearest.map_or_else(
        || "remove it".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    reader.remark(at, &format!("is not a key of a service: {meant}"));
}

/// `entrypoint` replaces the image's ENTRYPOINT, `command` its CMD.
fn words(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    key: &str,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    let words = reader.words(at)?;
    if words.iter().all(String::is_empty) {
        reader.remark(at, "the image's own cannot be emptied: name a program");
        return Ok(());
    }
    let (field, list) = match key {
        "command" => ("args", &mut builder.spec.args),
        _ => ("command", &mut builder.spec.command),
    };
    *list = words;
    builder.set(field, at);
    Ok(())
}

fn pull_policy(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    let policy = match reader.text(at)?.as_str() {
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "missing" | "if_not_present" => PullPolicy::Missing,
        _ => {
            reader.remark(at, "not supported: use always, missing or never");
            return Ok(());
        }
    };
    builder.spec.pull_policy = policy.into();
    Ok(())
}

/// Containers have few capabilities anyway; only the drop of one of those is lost.
fn cap_drop(reader: &mut Reader<'_>, at: &Cursor<'_>) -> Result<(), Remark> {
    for item in at.items("a list of capabilities")? {
        let name = reader.text(&item)?;
        if capability::parse(&name).is_some_and(|name| capability::DEFAULT.contains(&name)) {
            reader.remark(
                &item,
                "every container keeps this capability: use `user` instead",
            );
        }
    }
    Ok(())
}

fn extra_hosts(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    let mut lines = Vec::new();
    if let Value::Map(_) = at.value() {
        for (name, at) in at.entries("a map")? {
            // A name may have several addresses.
            for item in at.items_or_one("an IP address")? {
                lines.push((name.to_owned(), reader.text(&item)?, at.clone()));
            }
        }
    } else {
        for pair in reader.pairs(at, &[':', '='])? {
            let value = pair
                .value
                .ok_or_else(|| pair.at.error("has no address: write HOST:IP"))?;
            lines.push((pair.key, value, pair.at));
        }
    }
    for (name, address, at) in lines {
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(&address).to_owned();
        builder.set(&format!("extra_hosts[{}]", name.escape_debug()), &at);
        if builder.spec.extra_hosts.insert(name, address).is_some() {
            reader.remark(
                &at,
                "a name has one address here, the last: remove the others",
            );
        }
    }
    Ok(())
}

fn readiness(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    let found = healthcheck::read(reader, at)?;
    if let Some((probe, port, at)) = found.probe {
        let (served, port) = (builder.spec.port, u32::from(port));
        if served == 0 {
            builder.spec.port = port;
            builder.set("port", &at);
        }
        if served == 0 || served == port {
            builder.set("readiness", &at);
            builder.spec.readiness = Some(probe);
        } else {
            let text =
                format!("asks port {port}, and {served} is served: probe it with --health-path");
            reader.remark(&at, &text);
        }
    }
    if let Some((time, at)) = found.cold_start {
        builder.settings.cold_start_timeout = time.try_into().ok();
        builder.place("service.settings.cold_start_timeout", &at);
    }
    Ok(())
}
