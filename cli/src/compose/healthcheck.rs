//! A `healthcheck`: a readiness probe if it asks for a URL of the container.

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::readiness_probe::Kind;

use super::plan::Remark;
use super::reader::{Cursor, Reader};
use super::values;
use super::yaml::Value;

/// The default of `cold_start_timeout`.
const COLD_START_DEFAULT: Duration = Duration::from_secs(30);
/// The maximum of `readiness.timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TEST: &str = "test";

/// The fields that a `healthcheck` sets.
#[derive(Debug, Default)]
pub(super) struct Healthcheck<'n> {
    /// With the port that it asks.
    pub(super) probe: Option<(pb::ReadinessProbe, u16, Cursor<'n>)>,
    /// A time to start that exceeds the default.
    pub(super) cold_start: Option<(Duration, Cursor<'n>)>,
}

/// A URL on the container itself.
#[derive(Debug, PartialEq, Eq)]
struct Local {
    /// The Host header.
    authority: String,
    port: u16,
    path: String,
}

pub(super) fn read<'n>(
    reader: &mut Reader<'_>,
    at: &Cursor<'n>,
) -> Result<Healthcheck<'n>, Remark> {
    let mut found = Healthcheck::default();
    let mut timeout = None;
    let mut test = None;
    let mut is_disabled = false;
    for (key, at) in at.entries("a map with `test`")? {
        match key {
            TEST => test = Some(at),
            "disable" => is_disabled = reader.boolean(&at)?,
            "timeout" => timeout = Some((time(reader, &at)?, at)),
            "start_period" => {
                let start = time(reader, &at)?;
                if start > COLD_START_DEFAULT {
                    found.cold_start = Some((start, at));
                }
            }
            "interval" | "retries" | "start_interval" => {
                reader.remark(
                    &at,
                    "not used: a starting instance is probed at least every 50 ms",
                );
            }
            _ if key.starts_with("x-") => {}
            _ => reader.remark(&at, "is not a key of a healthcheck: remove it"),
        }
    }
    let Some(test) = test.filter(|_| !is_disabled) else {
        return Ok(found);
    };
    let command = command(reader, &test)?;
    match command.as_deref().map(local_url) {
        None => {}
        Some(None) => reader.remark(
            &test,
            "a command cannot be given here: build it into the image as HEALTHCHECK and use --health-check, or probe with --health-path",
        ),
        Some(Some(url)) => {
            let mut probe = pb::ReadinessProbe {
                kind: Some(Kind::Http(pb::HttpProbe {
                    path: url.path,
                    host: url.authority,
                    ..Default::default()
                })),
                ..Default::default()
            };
            if let Some((timeout, at)) = timeout {
                if timeout > TIMEOUT_MAX {
                    reader.remark(&at, "a probe takes at most 1m: the default of 1s applies");
                } else {
                    probe.timeout = timeout.try_into().ok();
                }
            }
            found.probe = Some((probe, url.port, test));
        }
    }
    Ok(found)
}

fn time(reader: &mut Reader<'_>, at: &Cursor<'_>) -> Result<Duration, Remark> {
    reader.value(at, "a duration such as 1m30s", values::duration)
}

/// The words of a test; `None` for `NONE`.
fn command(reader: &mut Reader<'_>, test: &Cursor<'_>) -> Result<Option<Vec<String>>, Remark> {
    let shell = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    if let Value::Text(_) = test.value() {
        let text = reader.text(test)?;
        return Ok((text != "NONE").then(|| shell(&text)));
    }
    let words = reader.words(test)?;
    match words.split_first() {
        None => Ok(None),
        Some((kind, _)) if kind == "NONE" => Ok(None),
        Some((kind, rest)) if kind == "CMD" => Ok(Some(rest.to_vec())),
        Some((kind, rest)) if kind == "CMD-SHELL" => Ok(Some(shell(&rest.join(" ")))),
        Some(_) => {
            Err(test.error("does not begin with CMD, CMD-SHELL or NONE: add it, or write a text"))
        }
    }
}

/// The URL that a command of `curl` or `wget` asks for, if it is all that the command does.
fn local_url(words: &[String]) -> Option<Local> {
    let program = words.first()?.rsplit('/').next()?;
    if !matches!(program, "curl" | "wget") {
        return None;
    }
    // `|| exit 1` only changes the exit code.
    let end = words.iter().position(|word| word == "||");
    let (command, rest) = words.split_at(end.unwrap_or(words.len()));
    if !matches!(
        rest.iter().map(String::as_str).collect::<Vec<_>>()[..],
        [] | ["||", "exit", "1"] | ["||", "false"]
    ) {
        return None;
    }
    let mut urls = command.iter().filter_map(|word| {
        let bare = word.trim_matches(['"', '\'']);
        bare.starts_with("http").then_some(bare)
    });
    let url = urls.next()?;
    // More than a GET: shell operators, and options that change the request.
    let is_more = |word: &String| {
        let changes = [
            "-H",
            "-X",
            "-d",
            "-u",
            "--header",
            "--request",
            "--data",
            "--user",
            "--post",
        ];
        changes.iter().any(|option| word.starts_with(option))
            || (word.contains(['|', ';', '&', '`', '$', '<', '>']) && !word.contains(url))
    };
    if urls.next().is_some() || command.iter().any(is_more) {
        return None;
    }
    let (authority, path) = split_url(url.strip_prefix("http://")?);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, values::port(port)?),
        _ => (authority, 80),
    };
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]");
    // A fragment never reaches a server.
    let path = path.split('#').next().unwrap_or_default();
    is_local.then(|| Local {
        authority: authority.to_owned(),
        port,
        path: if path.is_empty() {
            "/".to_owned()
        } else {
            path.to_owned()
        },
    })
}

fn split_url(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_request_to_the_container_itself_is_a_url() {
        let read = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            local_url(&words).map(|url| format!("{} {} {}", url.authority, url.port, url.path))
        };
        for (text, url) in [
            (
                "curl -f http://localhost:3000/health",
                "localhost:3000 3000 /health",
            ),
            ("/usr/bin/curl -fsS http://127.0.0.1", "127.0.0.1 80 /"),
            (
                "wget -q --spider http://localhost:80/a?b=c#d || exit 1",
                "localhost:80 80 /a?b=c",
            ),
            (
                "curl --fail \"http://localhost:9000/x\" || false",
                "localhost:9000 9000 /x",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Some(url), "{text}");
        }
        for text in [
            "pg_isready -U app",
            "curl -f https://localhost/",
            "curl -f http://db:80/",
            "curl -f http://localhost/ http://localhost/b",
            "curl -s http://localhost/ | grep ok",
            "curl http://localhost:80/ && curl http://localhost:81/",
            "curl -f http://localhost:0/",
            "curl -f -H X-Token:1 http://localhost/",
            "",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
