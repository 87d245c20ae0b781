//! Labels of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Violations;

/// Maximum number of labels per service.
const COUNT_MAX: usize = 64;
/// Maximum number of characters in a key or a value.
const TEXT_MAX: usize = 63;

/// At most 64 pairs of keys and values of at most 63 characters, without control characters and
/// empty keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Validates the labels at `field` (`service.labels`); adds refusals to `violations`.
    pub fn new(
        field: &str,
        pairs: impl IntoIterator<Item = (String, String)>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
        if pairs.len() > COUNT_MAX {
            violations.push(
                field,
                format!(
                    "{} labels are given, at most {COUNT_MAX} are allowed: remove some",
                    pairs.len()
                ),
            );
        }
        for (key, value) in &pairs {
            let shown: String = key.chars().take(TEXT_MAX).collect();
            let at = format!("{field}[{}]", shown.escape_debug());
            if key.is_empty() {
                violations.push(at.clone(), "the key is empty: give it a name");
            }
            for (what, text) in [("key", key), ("value", value)] {
                if text.chars().count() > TEXT_MAX {
                    violations.push(
                        at.clone(),
                        format!("the {what} is longer than {TEXT_MAX} characters: shorten it"),
                    );
                }
                if text.chars().any(char::is_control) {
                    violations.push(
                        at.clone(),
                        format!("the {what} holds a control character: leave it out"),
                    );
                }
            }
        }
        (violations.len() == before).then_some(Self(pairs))
    }

    /// The pairs, by key.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<Labels, String> {
        let mut violations = Violations::new();
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let read = Labels::new("service.labels", pairs, &mut violations);
        violations.finish().map_err(|e| e.to_string())?;
        read.ok_or_else(|| "refused without a reason".to_owned())
    }

    #[test]
    fn labels_within_the_limits_are_accepted() {
        assert!(labels(&[("team", "Größe M"), ("empty", ""), (&"k".repeat(63), "v")]).is_ok());
    }

    #[test]
    fn each_bad_label_is_named() {
        let long = "v".repeat(64);
        let error = labels(&[("", "x"), ("a", &long), ("b", "\n"), ("c", "fine")]).unwrap_err();
        assert!(error.contains("service.labels[]:"), "{error}");
        assert!(error.contains("service.labels[a]:"), "{error}");
        assert!(error.contains("service.labels[b]:"), "{error}");
        assert!(!error.contains("service.labels[c]:"), "{error}");
    }
}
