//! Limits, in-memory mounts and `deploy`.

use cless_proto::v1 as pb;

use super::builder::{Builder, labels};
use crate::compose::plan::Remark;
use crate::compose::reader::{Cursor, Reader};
use crate::compose::values;
use crate::compose::yaml::Value;

const SIZE: &str = "bytes, or a number with a unit, as in 512m or 1g";
const CORES: &str = "a number of cores, as in 0.5 or 2";
const NUMBER: &str = "a whole number";
const STATE: &str =
    "files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch";
const SPREAD: &str = "not used: traffic moves to a version once every node has started it";

pub(super) fn field(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    key: &str,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    match key {
        "tmpfs" => {
            for item in at.items_or_one("a path, or a list of paths")? {
                let text = reader.text(&item)?;
                tmpfs(reader, builder, &text, &item)?;
            }
        }
        "volumes" => {
            for item in at.items("a list of volumes")? {
                volume(reader, builder, &item)?;
            }
        }
        "shm_size" => {
            builder.spec.shm_bytes = reader.value(at, SIZE, values::bytes)?;
            builder.set("shm_bytes", at);
        }
        "ulimits" => ulimits(reader, builder, at)?,
        "mem_limit" => memory(reader, builder, at)?,
        "cpus" => cores(reader, builder, at)?,
        "pids_limit" => pids(reader, builder, at)?,
        "scale" => replicas(reader, builder, at)?,
        "deploy" => deploy(reader, builder, at)?,
        _ => {}
    }
    Ok(())
}

/// `0` is no limit in compose, and the default here.
fn unlimited(reader: &mut Reader<'_>, at: &Cursor<'_>, default: &str) {
    let text = format!("a container always has this limit, {default} by default: set it");
    reader.remark(at, &text);
}

fn memory(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    builder.spec.memory_bytes = reader.value(at, SIZE, values::bytes)?;
    builder.set("memory_bytes", at);
    if builder.spec.memory_bytes == 0 {
        unlimited(reader, at, "512m");
    }
    Ok(())
}

fn cores(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    builder.spec.cpu_millis = reader.value(at, CORES, values::millis)?;
    builder.set("cpu_millis", at);
    if builder.spec.cpu_millis == 0 {
        unlimited(reader, at, "1 core");
    }
    Ok(())
}

fn pids(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    let limit: i64 = reader.value(at, NUMBER, |text| text.parse().ok())?;
    if limit <= 0 {
        unlimited(reader, at, "512");
        return Ok(());
    }
    builder.spec.pids_limit = u32::try_from(limit).unwrap_or(u32::MAX);
    builder.set("pids_limit", at);
    Ok(())
}

/// The number of containers becomes the most instances; none is kept warm.
fn replicas(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    let count: u32 = reader.value(at, NUMBER, |text| text.parse().ok())?;
    builder.settings.max_instances = Some(count);
    builder.place("service.settings.max_instances", at);
    Ok(())
}

fn deploy(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    for (key, at) in at.entries("a map")? {
        match key {
            "replicas" => replicas(reader, builder, &at)?,
            "labels" => labels(reader, builder, &at)?,
            "resources" => resources(reader, builder, &at)?,
            "mode" => {
                if reader.text(&at)? != "replicated" {
                    reader.remark(&at, "not used: instances start where requests arrive");
                }
            }
            "restart_policy" => {}
            "update_config" | "rollback_config" => reader.remark(&at, SPREAD),
            "placement" | "endpoint_mode" => {
                reader.remark(&at, "not used: every node runs every service");
            }
            _ if key.starts_with("x-") => {}
            _ => reader.remark(&at, "is not a key of deploy: remove it"),
        }
    }
    Ok(())
}

fn resources(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    for (key, at) in at.entries("a map with `limits`")? {
        match key {
            "limits" => {
                for (key, at) in at.entries("a map")? {
                    match key {
                        "memory" => memory(reader, builder, &at)?,
                        "cpus" => cores(reader, builder, &at)?,
                        "pids" => pids(reader, builder, &at)?,
                        _ => reader.remark(&at, "is not a limit: remove it"),
                    }
                }
            }
            _ => reader.remark(&at, "nothing is reserved: use `limits`"),
        }
    }
    Ok(())
}

fn ulimits(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    let limit = |text: &str| text.parse::<i64>().ok();
    for (name, at) in at.entries("a map of limits")? {
        let (soft, hard) = if let Value::Map(_) = at.value() {
            let (mut soft, mut hard) = (None, None);
            for (key, at) in at.entries("a map with `soft` and `hard`")? {
                match key {
                    "soft" => soft = Some(reader.value(&at, NUMBER, limit)?),
                    "hard" => hard = Some(reader.value(&at, NUMBER, limit)?),
                    _ => return Err(at.error("is not a key of a limit: write `soft` and `hard`")),
                }
            }
            soft.zip(hard)
                .ok_or_else(|| at.error("needs `soft` and `hard`: add the other one"))?
        } else {
            let both = reader.value(&at, NUMBER, limit)?;
            (both, both)
        };
        builder.set(&format!("ulimits[{}]", builder.spec.ulimits.len()), &at);
        builder.spec.ulimits.push(pb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        });
    }
    Ok(())
}

/// A tmpfs: `/run` or `/run:size=64m,exec`.
fn tmpfs(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    text: &str,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size = 0;
    let mut exec = false;
    let mut lost = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                let invalid = || at.error(&format!("`{value}` is not a size: write {SIZE}"));
                size = values::bytes(value).ok_or_else(invalid)?;
            }
            None if option == "exec" => exec = true,
            None if matches!(option, "noexec" | "nosuid" | "nodev" | "rw") => {
                exec &= option != "noexec"
            }
            _ => lost.push(option),
        }
    }
    if !lost.is_empty() {
        let text = format!(
            "the options {} are not supported: use size and exec",
            lost.join(",")
        );
        reader.remark(at, &text);
    }
    mount(builder, path, size, exec, at);
    Ok(())
}

fn mount(builder: &mut Builder, path: &str, size: u64, exec: bool, at: &Cursor<'_>) {
    builder.set(&format!("tmpfs[{}]", path.escape_debug()), at);
    builder.spec.tmpfs.insert(path.to_owned(), size);
    if exec {
        builder.spec.tmpfs_exec.push(path.to_owned());
    }
}

/// Only in-memory volumes exist.
fn volume(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    let Value::Map(_) = at.value() else {
        reader.remark(at, STATE);
        return Ok(());
    };
    let (mut kind, mut target, mut size) = (String::new(), String::new(), 0);
    for (key, at) in at.entries("a map")? {
        match key {
            "type" => kind = reader.text(&at)?,
            "target" => target = reader.text(&at)?,
            "tmpfs" => {
                for (key, at) in at.entries("a map")? {
                    match key {
                        "size" => size = reader.value(&at, SIZE, values::bytes)?,
                        _ => reader.remark(&at, "not supported: use `size` alone"),
                    }
                }
            }
            _ => {}
        }
    }
    if kind == "tmpfs" {
        mount(builder, &target, size, false, at);
    } else {
        reader.remark(at, STATE);
    }
    Ok(())
}
