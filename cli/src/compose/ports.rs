//! The port of a service, from `ports` and `expose`.

use super::plan::Remark;
use super::reader::{Cursor, Reader};
use super::values;
use super::yaml::Value;

const FORM: &str = "8080:80, 127.0.0.1:8080:80/tcp, or a map with `target`";

/// A port of the container, or a range.
struct Mapping {
    /// `None`: not one TCP port.
    target: Option<u16>,
    shown: String,
}

/// The first TCP port, with its place; the others become remarks.
pub(super) fn read<'n>(
    reader: &mut Reader<'_>,
    ports: Option<&Cursor<'n>>,
    expose: Option<&Cursor<'n>>,
) -> Result<Option<(u16, Cursor<'n>)>, Remark> {
    let mut chosen: Option<(u16, Cursor<'n>)> = None;
    for list in [ports, expose].into_iter().flatten() {
        // An exposed port is reached only by other services.
        if chosen.is_some() {
            break;
        }
        for item in list.items("a list of ports")? {
            let mapping = mapping(reader, &item)?;
            match (mapping.target, &chosen) {
                (Some(port), None) => chosen = Some((port, item)),
                (Some(port), Some((served, _))) if port == *served => {}
                (Some(port), Some((served, _))) => {
                    let text = format!(
                        "only port {served} is served, as the first: for port {port}, deploy another service with --port {port}"
                    );
                    reader.remark(&item, &text);
                }
                (None, _) => {
                    let text = format!("{}: one TCP port is served: write it alone", mapping.shown);
                    reader.remark(&item, &text);
                }
            }
        }
    }
    Ok(chosen)
}

fn mapping(reader: &mut Reader<'_>, item: &Cursor<'_>) -> Result<Mapping, Remark> {
    if let Value::Map(_) = item.value() {
        let mut target = None;
        let mut protocol = "tcp".to_owned();
        for (key, at) in item.entries(FORM)? {
            match key {
                "target" => target = Some(reader.value(&at, "a port, 1 to 65535", values::port)?),
                "protocol" => protocol = reader.text(&at)?,
                "published" | "host_ip" | "mode" | "app_protocol" | "name" => {}
                _ if key.starts_with("x-") => {}
                _ => reader.remark(&at, "is not a key of a port: remove it"),
            }
        }
        let port =
            target.ok_or_else(|| item.error("has no `target`: give the container's port"))?;
        return Ok(Mapping {
            target: Some(port).filter(|_| protocol == "tcp"),
            shown: format!("{port}/{protocol}"),
        });
    }
    let shown = reader.text(item)?;
    let (ports, protocol) = shown.rsplit_once('/').unwrap_or((&shown, "tcp"));
    let target = ports.rsplit(':').next().unwrap_or(ports);
    let valid = |text: &str| {
        values::port(text).ok_or_else(|| {
            let text: String = shown.chars().take(80).collect();
            item.error(&format!("`{text}` is not a port: write {FORM}"))
        })
    };
    let target = match target.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (valid(low)?, valid(high)?);
            Some(low).filter(|_| low == high)
        }
        None => Some(valid(target)?),
    };
    Ok(Mapping {
        target: target.filter(|_| protocol == "tcp"),
        shown,
    })
}
