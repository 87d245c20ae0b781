//! The text of the configuration file, PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::contexts::{Config, Context, ContextName};

/// Heads the file that [`print`] writes.
const HEADER: &str =
    "# Written by `cless login` and `cless context`. It holds tokens: keep it private.\n\n";

/// The first problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// From 1.
    pub(super) line: usize,
    /// The field, as in `contexts.prod.token`; empty if the text is not TOML.
    pub(super) field: String,
    /// What is wrong, with the remedy.
    pub(super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.message),
            field => write!(f, "line {}: {field}: {}", self.line, self.message),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    current: Option<Spanned<String>>,
    #[serde(default)]
    contexts: BTreeMap<String, Spanned<RawContext>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawContext {
    #[serde(default)]
    servers: Vec<Spanned<String>>,
    #[serde(default)]
    ca_fingerprints: Vec<Spanned<String>>,
    token: Option<Spanned<String>>,
}

/// Reads a file.
///
/// # Errors
/// The first problem. It holds no token.
pub(super) fn parse(text: &str) -> Result<Config, Problem> {
    let at = |span: Range<usize>, field: String, message: String| Problem {
        line: line_of(text, span.start),
        field,
        message,
    };
    let raw: RawConfig = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let field = key_at(text, span.start).to_owned();
        at(span, field, without_tokens(error.message()))
    })?;
    let mut contexts = BTreeMap::new();
    for (name, raw) in raw.contexts {
        let span = raw.span();
        let field = |key: &str| match name.parse::<ContextName>() {
            Ok(name) => format!("contexts.{name}{key}"),
            Err(_) => format!("contexts{key}"),
        };
        let id = name.parse().map_err(|error| {
            at(
                span.clone(),
                field(""),
                format!("`{}` {error}", name.escape_debug()),
            )
        })?;
        let raw = raw.into_inner();
        let servers = each(&raw.servers, |span, quoted, error| {
            at(span, field(".servers"), format!("{quoted} {error}"))
        })?;
        let pins = each(&raw.ca_fingerprints, |span, quoted, error| {
            at(span, field(".ca-fingerprints"), format!("{quoted} {error}"))
        })?;
        let token = match &raw.token {
            None => None,
            Some(token) => Some(
                token
                    .get_ref()
                    .parse()
                    .map_err(|error| at(token.span(), field(".token"), format!("{error}")))?,
            ),
        };
        let context = Context {
            servers,
            pins,
            token,
        };
        if context.servers.is_empty() {
            let message = "is missing: write servers = [\"https://HOST:PORT\"]";
            return Err(at(span, field(".servers"), message.to_owned()));
        }
        if context.pins.is_empty() && context.servers.iter().any(|server| server.is_encrypted()) {
            let message = "is missing, and without it no server is trusted: write \
                           ca-fingerprints = [\"sha256:…\"], or log in again";
            return Err(at(span, field(".ca-fingerprints"), message.to_owned()));
        }
        contexts.insert(id, context);
    }
    let Some(current) = raw.current else {
        return Ok(Config::new(contexts, None).unwrap_or_default());
    };
    let known = current.get_ref().parse().ok();
    let known = known.and_then(|name| Config::new(contexts, Some(name)).ok());
    known.ok_or_else(|| {
        let message = format!(
            "there is no context `{}`: name one of the file, or remove the line",
            without_tokens(&current.get_ref().escape_debug().to_string())
        );
        at(current.span(), "current".to_owned(), message)
    })
}

/// Reads each text; an error gets its place, the text in quotes, and the reason.
fn each<T: FromStr<Err: fmt::Display>>(
    texts: &[Spanned<String>],
    problem: impl Fn(Range<usize>, String, T::Err) -> Problem,
) -> Result<Vec<T>, Problem> {
    let texts = texts.iter();
    let values = texts.map(|text| {
        let quoted = without_tokens(&text.get_ref().escape_debug().to_string());
        let quoted = format!("`{quoted}`");
        text.get_ref()
            .parse()
            .map_err(|error| problem(text.span(), quoted, error))
    });
    values.collect()
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The bare key of the line that holds the byte; empty if it has none.
fn key_at(text: &str, at: usize) -> &str {
    let line = text.lines().nth(line_of(text, at) - 1).unwrap_or_default();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let is_bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.bytes().all(is_bare) && !key.starts_with("cless") {
        key
    } else {
        ""
    }
}

/// The text without what may be a part of a token.
fn without_tokens(text: &str) -> String {
    let mut parts = text.split("cless");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (token, rest) = part.split_at(end.unwrap_or(part.len()));
        clean.push_str("cless");
        clean.push_str(if token.is_empty() { "" } else { "…" });
        clean.push_str(rest);
    }
    clean
}

#[derive(Serialize)]
struct PrintedConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: BTreeMap<String, PrintedContext>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PrintedContext {
    servers: Vec<String>,
    ca_fingerprints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// The text of a file, which [`parse`] reads back.
pub(super) fn print(config: &Config) -> String {
    let context = |context: &Context| PrintedContext {
        servers: context.servers.iter().map(ToString::to_string).collect(),
        ca_fingerprints: context.pins.iter().map(ToString::to_string).collect(),
        token: context
            .token
            .as_ref()
            .map(|token| token.expose().to_owned()),
    };
    let contexts = config.contexts();
    let printed = PrintedConfig {
        current: config.current().map(ToString::to_string),
        contexts: contexts
            .map(|(name, c)| (name.to_string(), context(c)))
            .collect(),
    };
    let text = toml::to_string(&printed).expect("tables with keys of text and arrays of text");
    format!("{HEADER}{text}")
}

#[cfg(test)]
mod tests {
    use super::super::contexts::tests::configs;
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "cless_AbCdEfGhIjK_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    proptest! {
        #[test]
        fn a_configuration_survives_its_text(config in configs()) {
            prop_assert_eq!(parse(&print(&config)), Ok(config));
        }

        /// Fuzz target: texts near a valid one.
        #[test]
        fn fuzz_any_text_is_read_or_refused_with_its_line(
            config in configs(),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[\\PC\n\"\\[\\]=.#']{0,6}", 0usize..9), 0..5),
            noise in proptest::option::of("\\PC{0,80}"),
        ) {
            let mut text = noise.unwrap_or_else(|| print(&config));
            for (at, inserted, removed) in cuts {
                let mut chars: Vec<char> = text.chars().collect();
                let at = at.index(chars.len() + 1);
                let end = (at + removed).min(chars.len());
                chars.splice(at..end, inserted.chars());
                text = chars.into_iter().collect();
            }
            match parse(&text) {
                Ok(config) => prop_assert_eq!(parse(&print(&config)), Ok(config)),
                Err(problem) => {
                    prop_assert!((1..=text.lines().count().max(1) + 1).contains(&problem.line));
                    prop_assert!(!problem.message.is_empty());
                    let shown = problem.to_string();
                    for (_, context) in config.contexts() {
                        if let Some(token) = &context.token {
                            let secret = token.expose().rsplit('_').next().unwrap();
                            prop_assert!(!shown.contains(secret), "{}", shown);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_problem_has_line_field_and_remedy() {
        let pin = "0".repeat(64);
        let with = |line: &str| {
            format!(
                "\n[contexts.a]\nservers = [\"https://a:1\"]\nca-fingerprints = [\"sha256:{pin}\"]\n{line}\n"
            )
        };
        for (text, problem) in [
            (
                with("token = \"secret\""),
                "line 5: contexts.a.token: is not a token: give `cless_ID_SECRET` as `cless token create` prints it, whole",
            ),
            (
                with("token = 7"),
                "line 5: token: invalid type: integer `7`, expected a string",
            ),
            (
                with(&format!("tokn = \"{SECRET}\"")),
                "line 5: tokn: unknown field `tokn`, expected one of `servers`, `ca-fingerprints`, `token`",
            ),
            (
                "current = \"b\"".to_owned(),
                "line 1: current: there is no context `b`: name one of the file, or remove the line",
            ),
            (
                "[contexts.a]\nservers = [\"http://plane:1\"]".to_owned(),
                "line 2: contexts.a.servers: `http://plane:1` is another machine, and http:// is neither encrypted nor authenticated: write https:// (http:// reaches a control plane with --insecure on this machine alone)",
            ),
            (
                "[contexts.a]\n".to_owned(),
                "line 1: contexts.a.servers: is missing: write servers = [\"https://HOST:PORT\"]",
            ),
            (
                "[contexts.a]\nservers = [\"https://a:1\"]".to_owned(),
                "line 1: contexts.a.ca-fingerprints: is missing, and without it no server is trusted: write ca-fingerprints = [\"sha256:…\"], or log in again",
            ),
            (
                "[contexts.a]\nservers = [\"https://a:1\"]\nca-fingerprints = [\"x\"]".to_owned(),
                "line 3: contexts.a.ca-fingerprints: `x` is no fingerprint: give `sha256:` and 64 hexadecimal digits, as the control plane logs it at its start",
            ),
            (
                "[contexts.\"a b\"]\nservers = []".to_owned(),
                "line 1: contexts: `a b` is not the name of a context: use 1 to 63 characters of a-z, A-Z, 0-9, `-`, `_` and `.`",
            ),
            (
                format!("[contexts.a]\nservers = \"{SECRET}\""),
                "line 2: servers: invalid type: string \"cless…\", expected a sequence",
            ),
        ] {
            let found = parse(&text).expect_err(&text).to_string();
            assert_eq!(found, problem, "{text}");
            assert!(!found.contains("0123456789abc"), "{found}");
        }
        let broken = parse("[contexts.a\nservers").expect_err("it is not TOML");
        assert_eq!(broken.line, 1);
        assert_eq!(parse(""), Ok(Config::default()));
    }
}
