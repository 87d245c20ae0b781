//! Validation errors.
//!
//! A single value gives a [`Reason`]; a reason with the path of the field is a [`Violation`]; all
//! violations of a message are an [`Error`]. A reason states the problem and the remedy, because a
//! caller at a terminal sees nothing else.

use std::fmt;

/// The problem with one value and the remedy, without its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(String);

impl Reason {
    /// Creates a reason from a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Adds the dotted path of the field in the request, such as `version.spec.env[FOO]`.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Violation {
        Violation {
            field: field.into(),
            reason: self.0,
        }
    }
}

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The dotted path in the request, as in the `.proto` files.
    pub field: String,
    /// The problem and the remedy.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// The invalid fields of a refused message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    violations: Vec<Violation>,
    more: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, violation) in self.violations.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{violation}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Error {
    /// An error about one field.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            violations: vec![Reason::new(reason).at(field)],
            more: 0,
        }
    }

    /// The first violations, at least one.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The number of further violations.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

/// Collects the violations of a message, to report them at once: keeps the first
/// [`Violations::KEPT`] and counts the others.
#[derive(Debug, Default)]
pub struct Violations {
    kept: Vec<Violation>,
    more: usize,
}

impl Violations {
    /// Number of violations that are kept.
    pub const KEPT: usize = 20;

    /// An empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a violation.
    pub fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.refuse(field, Reason::new(reason));
    }

    /// Returns the value, or adds its reason under `field`.
    pub fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Reason>) -> Option<T> {
        value.map_err(|reason| self.refuse(field, reason)).ok()
    }

    fn refuse(&mut self, field: impl Into<String>, reason: Reason) {
        if self.kept.len() < Self::KEPT {
            self.kept.push(reason.at(field));
        } else {
            self.more += 1;
        }
    }

    /// Whether there is no violation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of violations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    /// # Errors
    /// If there is any violation.
    pub fn finish(self) -> Result<(), Error> {
        if self.kept.is_empty() {
            return Ok(());
        }
        Err(Error {
            violations: self.kept,
            more: self.more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_violations_are_kept_and_the_others_counted() {
        let mut violations = Violations::new();
        for at in 0..1000 {
            violations.push(format!("f[{at}]"), "is bad");
        }
        assert_eq!(violations.len(), 1000);
        let error = violations.finish().unwrap_err();
        assert_eq!(
            (error.violations().len(), error.more()),
            (Violations::KEPT, 980)
        );
        let text = error.to_string();
        assert!(text.starts_with("f[0]: is bad; f[1]"), "{text}");
        assert!(text.ends_with("; and 980 more"), "{text}");
    }
}
