//! A node with its path, and the state of reading a file.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::interpolate::Expander;
use super::plan::{Remark, Sources};
use super::yaml::{Node, Value};

/// A node and the keys that lead to it.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    node: &'a Node,
    path: String,
    line: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            node,
            path: String::new(),
            line: node.line,
        }
    }

    pub(super) fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// An error or remark at this place.
    pub(super) fn error(&self, text: &str) -> Remark {
        Remark {
            line: self.line,
            path: self.path.clone(),
            text: text.to_owned(),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The entries of a map; none for null.
    ///
    /// # Errors
    /// The node is something else.
    pub(super) fn entries(&self, expected: &str) -> Result<Vec<(&'a str, Self)>, Remark> {
        match &self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => Ok(entries
                .iter()
                .map(|entry| (&*entry.key, self.below(&entry.key, entry.line, &entry.node)))
                .collect()),
            _ => Err(self.error(&format!("expected {expected}"))),
        }
    }

    /// The items of a list; none for null.
    ///
    /// # Errors
    /// The node is something else.
    pub(super) fn items(&self, expected: &str) -> Result<Vec<Self>, Remark> {
        match &self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::List(items) => Ok(items.iter().map(|item| self.item(item)).collect()),
            _ => Err(self.error(&format!("expected {expected}"))),
        }
    }

    /// The items of a list, or the one text.
    ///
    /// # Errors
    /// The node is a map.
    pub(super) fn items_or_one(&self, expected: &str) -> Result<Vec<Self>, Remark> {
        match &self.node.value {
            Value::Text(_) => Ok(vec![self.clone()]),
            _ => self.items(expected),
        }
    }

    fn item(&self, node: &'a Node) -> Self {
        Self {
            node,
            path: self.path.clone(),
            line: node.line,
        }
    }

    fn below(&self, key: &str, line: usize, node: &'a Node) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Self { node, path, line }
    }
}

/// A key with its value, if it has one, from a map or from a list of `KEY=VALUE`.
pub(super) struct Pair<'a> {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) at: Cursor<'a>,
}

/// The state of reading a file.
pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources<'a>,
    expander: Expander<'a>,
    /// The names of all services.
    services: BTreeSet<String>,
    remarks: Vec<Remark>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        Self {
            sources,
            expander: Expander::new(sources.variable),
            services: BTreeSet::new(),
            remarks: Vec::new(),
        }
    }

    pub(super) fn remark(&mut self, at: &Cursor<'_>, text: &str) {
        self.remarks.push(at.error(text));
    }

    pub(super) fn set_services<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.services = names.map(str::to_owned).collect();
    }

    /// The service that the value of a variable names as a host.
    pub(super) fn named_service(&self, name: &str, value: &str) -> Option<&str> {
        let name = name.to_ascii_uppercase();
        let is_host = ["HOST", "ADDR", "SERVER", "URL"]
            .iter()
            .any(|part| name.contains(part));
        let find = |text: &str| self.services.get(text).map(String::as_str);
        if is_host && let Some(found) = find(value) {
            return Some(found);
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let mut start = 0;
        for word in value.split(|c| !is_part(c)) {
            let (before, after) = (&value[..start], &value[start + word.len()..]);
            let is_port = after
                .strip_prefix(':')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if is_port || (before.ends_with("//") && !has_user(after)) || before.ends_with('@') {
                let found = find(word);
                if found.is_some() {
                    return found;
                }
            }
            // The separator may be several bytes long.
            start += word.len();
            start += value[start..].chars().next().map_or(0, char::len_utf8);
        }
        None
    }

    /// The number of remarks.
    pub(super) fn remarks(&self) -> usize {
        self.remarks.len()
    }

    /// Drops the remarks after the first `kept`.
    pub(super) fn forget(&mut self, kept: usize) {
        self.remarks.truncate(kept);
    }

    /// The remarks by line.
    pub(super) fn finish(mut self) -> Vec<Remark> {
        self.remarks.sort_by_key(|remark| remark.line);
        self.remarks
    }

    /// A text with its variables.
    ///
    /// # Errors
    /// The node is a list, a map or null, or a variable is required.
    pub(super) fn text(&mut self, at: &Cursor<'_>) -> Result<String, Remark> {
        let Value::Text(text) = &at.node.value else {
            return Err(at.error("expected a text"));
        };
        let expanded = self.expander.expand(text);
        let expanded = expanded.map_err(|problem| at.error(&problem))?;
        let unset: BTreeSet<String> = std::mem::take(&mut self.expander.unset);
        for name in unset {
            self.remark(
                at,
                &format!(
                    "the variable {name} is not set, and so empty: set it, or write it to .env"
                ),
            );
        }
        Ok(expanded)
    }

    /// A text that `read` converts; `form` is a valid one.
    ///
    /// # Errors
    /// The text is not valid.
    pub(super) fn value<T>(
        &mut self,
        at: &Cursor<'_>,
        form: impl Display,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Remark> {
        let text = self.text(at)?;
        let shown: String = text.chars().take(80).collect();
        read(&text).ok_or_else(|| at.error(&format!("`{shown}` is not valid: write {form}")))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, at: &Cursor<'_>) -> Result<bool, Remark> {
        self.value(at, "true or false", |text| match text {
            "true" | "True" | "TRUE" | "yes" | "on" => Some(true),
            "false" | "False" | "FALSE" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// A map, or a list of `KEY=VALUE` with one of these separators.
    ///
    /// # Errors
    /// The node is neither.
    pub(super) fn pairs<'n>(
        &mut self,
        at: &Cursor<'n>,
        separators: &[char],
    ) -> Result<Vec<Pair<'n>>, Remark> {
        let expected = "a map, or a list of KEY=VALUE";
        if let Value::Map(_) = at.node.value {
            let mut pairs = Vec::new();
            for (key, at) in at.entries(expected)? {
                let value = (!at.is_null()).then(|| self.text(&at)).transpose()?;
                let key = key.to_owned();
                pairs.push(Pair { key, value, at });
            }
            return Ok(pairs);
        }
        let mut pairs = Vec::new();
        for item in at.items(expected)? {
            let text = self.text(&item)?;
            let (key, value) = match text.split_once(separators) {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (text.as_str(), None),
            };
            if key.is_empty() {
                return Err(item.error("has no name before `=`: write KEY=VALUE"));
            }
            let key = key.to_owned();
            pairs.push(Pair {
                key,
                value,
                at: item,
            });
        }
        Ok(pairs)
    }

    /// Words: a list, or a text split as a shell does.
    ///
    /// # Errors
    /// An open quote.
    pub(super) fn words(&mut self, at: &Cursor<'_>) -> Result<Vec<String>, Remark> {
        if let Value::Text(_) = at.node.value {
            return self.value(at, "words, each quote closed", shlex::split);
        }
        let items = at.items("a text, or a list of words")?;
        items.iter().map(|item| self.text(item)).collect()
    }

    /// The variables of an env file; `None` if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or is invalid.
    pub(super) fn env_file(
        &mut self,
        at: &Cursor<'_>,
        path: &str,
    ) -> Result<Option<Vec<super::dotenv::Variable>>, Remark> {
        let text = (self.sources.env_file)(path);
        let text = text.map_err(|problem| at.error(&format!("{path}: {problem}")))?;
        let Some(text) = text else {
            return Ok(None);
        };
        let read = super::dotenv::parse(&text, self.sources.variable);
        read.map(Some)
            .map_err(|(line, problem)| at.error(&format!("{path}:{line}: {problem}")))
    }
}

/// Whether the rest of an authority shows that it began with a user (RFC 3986 section 3.2).
fn has_user(rest: &str) -> bool {
    let authority = rest.split(['/', ' ']).next().unwrap_or_default();
    authority.contains('@')
}
