//! Env files as compose reads them, which differs from `docker run --env-file`: quotes, escapes,
//! comments and variables count.

use std::collections::BTreeMap;

use super::interpolate::Expander;

/// A line from 1, and the problem there.
pub(crate) type InvalidLine = (usize, String);

/// A variable with its line. Without a value it is passed from the surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// Parses an env file. `variable` is consulted before the file's own earlier lines.
///
/// # Errors
/// The first invalid line.
pub(crate) fn parse(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Variable>, InvalidLine> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    let mut read: Vec<Variable> = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut spent = 0;
    while !rest.is_empty() {
        let (current, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let current = current.trim();
        if current.is_empty() || current.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let start = line;
        let failed = |problem: &str| (start, problem.to_owned());
        let current = current
            .strip_prefix("export ")
            .map_or(current, str::trim_start);
        let name_end = current.find('=').unwrap_or(current.len());
        let name = current[..name_end].trim_end();
        if name.is_empty() {
            return Err(failed("has no name before `=`: write NAME=value"));
        }
        if name.contains(|c: char| c.is_whitespace() || c == '\0') {
            return Err(failed("has white space in the name: write NAME=value"));
        }
        let value = match rest.find('=').filter(|_| name_end < current.len()) {
            None => {
                rest = after;
                None
            }
            Some(equals) => {
                let value = current[name_end + 1..].trim_start();
                let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'));
                let (raw, is_literal) = if let Some(quote) = quote {
                    // A quoted value may span lines.
                    let body = &rest[equals + 1..].trim_start()[1..];
                    let end = quote_end(body, quote)
                        .ok_or_else(|| failed("a quote is not closed: add it"))?;
                    let tail = &body[end + 1..];
                    let (junk, next) = tail.split_once('\n').unwrap_or((tail, ""));
                    let junk = junk.trim();
                    if !junk.is_empty() && !junk.starts_with('#') {
                        return Err(failed("has text after the closing quote: remove it"));
                    }
                    line += body[..end].matches('\n').count();
                    rest = next;
                    (body[..end].to_owned(), quote == '\'')
                } else {
                    rest = after;
                    let comment = value.find(" #").or_else(|| value.find("\t#"));
                    let end = if value.starts_with('#') {
                        Some(0)
                    } else {
                        comment
                    };
                    (
                        value[..end.unwrap_or(value.len())].trim_end().to_owned(),
                        false,
                    )
                };
                let text = if is_literal {
                    raw
                } else {
                    let raw = if quote.is_some() { unescape(&raw) } else { raw };
                    let lookup = |name: &str| variable(name).or_else(|| known.get(name).cloned());
                    let expanded = Expander::new(&lookup).expand(&raw);
                    expanded.map_err(|problem| failed(&problem))?
                };
                spent += text.len();
                if spent > super::interpolate::TOTAL_MAX {
                    return Err(failed("the values are too long: shorten them"));
                }
                known.insert(name.to_owned(), text.clone());
                Some(text)
            }
        };
        read.push(Variable {
            line: start,
            name: name.to_owned(),
            value,
        });
        line += 1;
    }
    Ok(read)
}

/// The position of the closing quote.
fn quote_end(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// Resolves the escapes of a double-quoted value; `\$` becomes `$$`, which stays a `$`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(plain @ ('"' | '\\' | '\'')) => out.push(plain),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}
