//! `environment` and `env_file`.

use cless_proto::RESERVED_ENV;

use super::builder::Builder;
use crate::compose::plan::Remark;
use crate::compose::reader::{Cursor, Reader};
use crate::compose::values;
use crate::compose::yaml::Value;

/// Reads the variables; those of `environment` replace those of files.
pub(super) fn read(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    environment: Option<&Cursor<'_>>,
    env_file: Option<&Cursor<'_>>,
) -> Result<(), Remark> {
    if let Some(at) = env_file {
        for item in at.items_or_one("a path, or a list of paths")? {
            file(reader, builder, &item)?;
        }
    }
    if let Some(at) = environment {
        for pair in reader.pairs(at, &['='])? {
            // A name alone passes the variable, if it is set.
            let value = pair.value.or_else(|| (reader.sources.variable)(&pair.key));
            match value {
                Some(value) => set(reader, builder, pair.key, value, &pair.at, ""),
                None => {
                    let text = format!(
                        "{} is not set here, and so left out: set it, or write it to .env",
                        pair.key
                    );
                    reader.remark(&pair.at, &text);
                }
            }
        }
    }
    Ok(())
}

fn file(reader: &mut Reader<'_>, builder: &mut Builder, at: &Cursor<'_>) -> Result<(), Remark> {
    let mut is_required = true;
    let path = if let Value::Map(_) = at.value() {
        let mut path = None;
        for (key, at) in at.entries("a map with `path`")? {
            match key {
                "path" => path = Some(reader.text(&at)?),
                "required" => is_required = reader.boolean(&at)?,
                _ => reader.remark(&at, "is not supported: remove it"),
            }
        }
        path.ok_or_else(|| at.error("has no `path`: add it"))?
    } else {
        reader.text(at)?
    };
    match reader.env_file(at, &path)? {
        Some(variables) => {
            for variable in variables {
                let value = variable
                    .value
                    .or_else(|| (reader.sources.variable)(&variable.name));
                if let Some(value) = value {
                    let place = format!("{path}:{}: ", variable.line);
                    set(reader, builder, variable.name, value, at, &place);
                }
            }
        }
        None if is_required => {
            return Err(at.error(&format!(
                "{path} does not exist: create it, or set `required: false`"
            )));
        }
        None => {}
    }
    Ok(())
}

/// Sets a variable that `place` in a file, or `at`, gives.
fn set(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    name: String,
    value: String,
    at: &Cursor<'_>,
    place: &str,
) {
    if name == "PORT"
        && builder.spec.port == 0
        && let Some(port) = values::port(&value)
    {
        builder.spec.port = port.into();
        builder.set("port", at);
    } else if RESERVED_ENV.contains(&name.as_str()) {
        // The same value is set anyway.
        if name != "PORT" || value != builder.spec.port.to_string() {
            let port = builder.spec.port;
            let text = match name.as_str() {
                "PORT" => format!(
                    "{place}PORT is set by cless, to the port that is served, {port}: remove it"
                ),
                _ => format!("{place}{name} is set by cless: remove it"),
            };
            reader.remark(at, &text);
        }
    } else {
        if let Some(service) = reader.named_service(&name, &value) {
            let text = format!(
                "{place}{name} names the service `{service}`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node"
            );
            reader.remark(at, &text);
        }
        builder.set(&format!("env[{}]", name.escape_debug()), at);
        builder.spec.env.insert(name, value);
    }
}
