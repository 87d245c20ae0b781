//! The engine's runtime that containers run under, as the node was told, against what the engine has.
//!
//! A node that is to run containers under `runsc` must not run one under anything else. So a start
//! whose runtime the engine lacks fails with a reason that names what there is, until an engine
//! answers that has it; the engine is asked at every (re)connection.

use parking_lot::RwLock;

use crate::runtime::Runtimes;

/// The engine cannot run containers as the node was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the engine has no runtime `{asked}`, which --runtime asks for; it has {}: add it to the \
     engine's configuration, or start the node with one of these",
    if self.offered.is_empty() { "none".to_owned() } else { self.offered.join(", ") }
)]
pub struct Unfit {
    asked: String,
    offered: Vec<String>,
}

/// The runtime that containers get. Pure.
///
/// # Errors
/// [`Unfit`] if the engine does not have the one that is asked for.
pub fn fit(asked: Option<&str>, engine: &Runtimes) -> Result<String, Unfit> {
    match asked {
        None => Ok(engine.default.clone()),
        Some(asked) if engine.offered.iter().any(|name| name == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Unfit {
            asked: asked.to_owned(),
            offered: engine.offered.clone(),
        }),
    }
}

/// What a node was told, and whether it holds now.
#[derive(Debug)]
pub(super) struct OciRuntime {
    asked: Option<String>,
    /// Empty until the engine has answered.
    found: RwLock<Result<String, Unfit>>,
}

impl OciRuntime {
    pub(super) fn new(asked: Option<String>) -> Self {
        Self {
            asked,
            found: RwLock::new(Ok(String::new())),
        }
    }

    /// What containers are created with; `None`: the engine's default.
    ///
    /// # Errors
    /// [`Unfit`]: no container is to be created.
    pub(super) fn for_create(&self) -> Result<Option<String>, Unfit> {
        self.found.read().clone().map(|_| self.asked.clone())
    }

    /// As it is reported; empty until the engine has answered.
    pub(super) fn found(&self) -> Result<String, Unfit> {
        self.found.read().clone()
    }

    /// The engine said what it has. True if that changes anything.
    pub(super) fn compare(&self, engine: &Runtimes) -> bool {
        let fits = fit(self.asked.as_deref(), engine);
        let mut found = self.found.write();
        let changed = *found != fits;
        *found = fits;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(offered: &[&str]) -> Runtimes {
        Runtimes {
            offered: offered.iter().map(|name| (*name).to_owned()).collect(),
            default: "runc".to_owned(),
        }
    }

    #[test]
    fn what_is_asked_for_must_be_there() {
        let has = engine(&["runc", "runsc"]);
        assert_eq!(fit(None, &has), Ok("runc".to_owned()));
        assert_eq!(fit(Some("runsc"), &has), Ok("runsc".to_owned()));
        let unfit = fit(Some("kata"), &has).unwrap_err().to_string();
        assert!(
            unfit.contains("`kata`") && unfit.contains("runc, runsc"),
            "{unfit}"
        );
    }

    #[test]
    fn an_engine_that_comes_back_without_it_stops_starts_until_it_has_it() {
        let runtime = OciRuntime::new(Some("runsc".to_owned()));
        assert_eq!(
            runtime.for_create(),
            Ok(Some("runsc".to_owned())),
            "not asked yet"
        );
        assert!(runtime.compare(&engine(&["runc"])));
        assert!(runtime.for_create().is_err());
        assert!(!runtime.compare(&engine(&["runc"])));
        assert!(runtime.compare(&engine(&["runc", "runsc"])));
        assert_eq!(runtime.for_create(), Ok(Some("runsc".to_owned())));
    }
}
