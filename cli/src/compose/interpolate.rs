//! Variables in values, as compose has them: `$A`, `${A}`, `${A:-default}`, `${A-default}`,
//! `${A:?message}`, `${A?message}`, `${A:+other}`, `${A+other}`, and `$$` for `$`.
//!
//! A value of a variable is not expanded again. The part after an operator is, if it is used.

use std::collections::BTreeSet;

/// Maximum bytes of one expanded value.
const TEXT_MAX: usize = 64 << 10;
/// Maximum bytes of all expanded values of a file.
pub(super) const TOTAL_MAX: usize = 4 << 20;
/// Maximum depth of defaults in defaults.
const DEPTH_MAX: usize = 8;

/// Expands values and counts their size.
pub(super) struct Expander<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    spent: usize,
    /// Variables that are not set and have no default.
    pub(super) unset: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    pub(super) fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            variable,
            spent: 0,
            unset: BTreeSet::new(),
        }
    }

    /// # Errors
    /// The problem of a malformed expression, a required variable or the size.
    pub(super) fn expand(&mut self, text: &str) -> Result<String, String> {
        self.nested(text, 0)
    }

    fn nested(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(format!("has defaults over {DEPTH_MAX} deep: simplify it"));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let end = closing(inner).ok_or("`${` has no `}`: write `$$` for a plain `$`")?;
                out.push_str(&self.braced(&inner[..end], depth)?);
                rest = &inner[end + 1..];
            } else {
                let (name, after) = rest.split_at(name_len(rest));
                if name.is_empty() {
                    return Err("`$` has no name after it: write `$$` for a plain `$`".to_owned());
                }
                out.push_str(&self.plain(name));
                rest = after;
            }
            if out.len() > TEXT_MAX {
                break;
            }
        }
        out.push_str(rest);
        self.spent = self.spent.saturating_add(out.len());
        if out.len() > TEXT_MAX || self.spent > TOTAL_MAX {
            return Err(format!(
                "is too long with its variables: {TEXT_MAX} bytes for a value, {TOTAL_MAX} for all"
            ));
        }
        Ok(out)
    }

    /// The value of a variable; an unset one is empty.
    fn plain(&mut self, name: &str) -> String {
        let value = (self.variable)(name);
        value.unwrap_or_else(|| {
            self.unset.insert(name.to_owned());
            String::new()
        })
    }

    /// The value of `${inner}`.
    fn braced(&mut self, inner: &str, depth: usize) -> Result<String, String> {
        let (name, rest) = inner.split_at(name_len(inner));
        if name.is_empty() {
            return Err("`${` has no name after it: write `$$` for a plain `$`".to_owned());
        }
        if rest.is_empty() {
            return Ok(self.plain(name));
        }
        let (empty_is_unset, rest) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let value = (self.variable)(name).filter(|value| !empty_is_unset || !value.is_empty());
        let mut characters = rest.chars();
        let operator = characters.next();
        let operand = characters.as_str();
        match (operator, value) {
            (Some('-' | '?'), Some(value)) => Ok(value),
            (Some('-'), None) => self.nested(operand, depth + 1),
            (Some('?'), None) => {
                let message = self.nested(operand, depth + 1)?;
                let separator = if message.is_empty() { "" } else { ": " };
                Err(format!(
                    "needs the variable {name}{separator}{message}: set it, or write it to .env"
                ))
            }
            (Some('+'), Some(_)) => self.nested(operand, depth + 1),
            (Some('+'), None) => Ok(String::new()),
            _ => Err(format!(
                "`${{{inner}}}` is not a variable: write ${{NAME}} or ${{NAME:-default}}"
            )),
        }
    }
}

/// The length of the name at the start of a text.
fn name_len(text: &str) -> usize {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return 0;
    }
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.bytes().take_while(is_part).count()
}

/// The position of the `}` that closes a `${` before the text.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}
