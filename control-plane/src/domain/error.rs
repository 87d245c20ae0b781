//! Why a value is refused.
//!
//! Three steps: a single value gives a [`Reason`]; a reason at a place in a message is a [`Violation`]; all
//! violations of a message together are an [`Error`]. A reason says what is wrong and what to write instead, because
//! it is all that a caller at a terminal gets to see.

use std::fmt;

/// Why one value is refused, with the remedy; it does not know where the value stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(String);

impl Reason {
    /// A reason in words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The reason at a field, named by its dotted path in the request: `version.spec.env[FOO]`.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Violation {
        Violation {
            field: field.into(),
            reason: self.0,
        }
    }
}

/// A field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The dotted path in the request, as in the `.proto` files.
    pub field: String,
    /// What is wrong and the remedy.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A message is refused: every field of it that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Error {
    violations: Vec<Violation>,
}

impl Error {
    /// One field that is wrong.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            violations: vec![Reason::new(reason).at(field)],
        }
    }

    /// At least one.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

/// Collects violations while a message is read, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Reason::new(reason).at(field));
    }

    /// The value, or its refusal noted under `field`.
    pub fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Reason>) -> Option<T> {
        value.map_err(|reason| self.0.push(reason.at(field))).ok()
    }

    /// Whether nothing was refused so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many were refused so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// # Errors
    /// If anything was refused.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error { violations: self.0 })
    }
}
