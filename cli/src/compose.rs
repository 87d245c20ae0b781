//! Services and versions from a compose file. PURE: variables and files come through [`Sources`].
//!
//! `yaml` reads the text into nodes with lines, `interpolate` and `dotenv` read variables, `service`
//! maps one service. Everything that cless cannot do becomes a [`Remark`] with its line; a value that
//! compose itself refuses is an error.
//!
//! Laws: no input panics; the work is bounded by [`FILE_MAX`], [`yaml::NODES_MAX`] and
//! [`interpolate::TOTAL_MAX`], whatever the aliases and variables of a file.

mod dotenv;
mod healthcheck;
mod interpolate;
mod plan;
mod ports;
mod reader;
mod service;
#[cfg(test)]
mod tests;
mod unsupported;
mod values;
mod yaml;

use std::collections::BTreeSet;

pub(crate) use dotenv::parse as parse_dotenv;
pub(crate) use plan::{Import, Plan, Remark, Sources};
use reader::{Cursor, Reader};

/// Maximum size in bytes of a compose file and of each env file.
pub(crate) const FILE_MAX: u64 = 1 << 20;

/// Reads a compose file. `only` selects services by their names in the file; empty selects those
/// that listen on a port, or the only one.
///
/// # Errors
/// The first line that is no valid compose file.
pub(crate) fn read(text: &str, only: &[String], sources: &Sources<'_>) -> Result<Plan, Remark> {
    let root = yaml::parse(text)?;
    let root = Cursor::root(&root);
    let mut reader = Reader::new(sources);
    let mut services = Vec::new();
    for (key, value) in root.entries("a map with the key `services`")? {
        match key {
            "services" => services = value.entries("a map of services by name")?,
            // Definitions without an effect of their own: each use has its own remark.
            "name" | "version" | "networks" | "volumes" | "secrets" | "configs" => {}
            "include" => reader.remark(&value, "other files are not read: import each of them"),
            _ if key.starts_with("x-") => {}
            _ => reader.remark(&value, "is not a key of a compose file: remove it"),
        }
    }
    if services.is_empty() {
        return Err(root.error("has no services: write them under `services`"));
    }
    if let Some(missing) = only
        .iter()
        .find(|name| !services.iter().any(|(known, _)| known == name))
    {
        let known: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
        return Err(root.error(&format!(
            "has no service `{missing}`: it has {}",
            known.join(", ")
        )));
    }
    reader.set_services(services.iter().map(|(name, _)| *name));
    let mut imports = Vec::new();
    let mut ids = BTreeSet::new();
    for (name, value) in &services {
        let selection = match only {
            [] if services.len() == 1 => service::Selection::Named,
            [] => service::Selection::Default,
            _ if only.iter().any(|one| one == name) => service::Selection::Named,
            _ => continue,
        };
        let Some(import) = service::read(&mut reader, name, value, selection)? else {
            continue;
        };
        if ids.insert(import.id.clone()) {
            imports.push(import);
        } else {
            let text = format!(
                "not imported: another service is `{}` too; rename it",
                import.id
            );
            reader.remark(value, &text);
        }
    }
    Ok(Plan {
        services: imports,
        remarks: reader.finish(),
    })
}
