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

/// All invalid fields of a refused message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Error {
    violations: Vec<Violation>,
}

impl Error {
    /// An error about one field.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            violations: vec![Reason::new(reason).at(field)],
        }
    }

    /// The violations, at least one.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

/// Collects the violations of a message, to report all at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// An empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a violation.
    pub fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Reason::new(reason).at(field));
    }

    /// Returns the value, or adds its reason under `field`.
    pub fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Reason>) -> Option<T> {
        value.map_err(|reason| self.0.push(reason.at(field))).ok()
    }

    /// Whether there is no violation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of violations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// # Errors
    /// If there is any violation.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error { violations: self.0 })
    }
}
