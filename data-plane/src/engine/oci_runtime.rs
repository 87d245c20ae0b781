//! The OCI runtime that containers run under, checked against what the engine offers.
//!
//! A node with `--runtime runsc` never runs a container under another runtime. While the engine
//! lacks the runtime, starts fail with an error that lists the alternatives. The check runs at
//! every connection to the engine.

use parking_lot::RwLock;

use crate::runtime::Runtimes;

/// The engine lacks the runtime that `--runtime` names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the engine has no runtime `{requested}`, which --runtime asks for; it has {}: add it to the \
     engine's configuration, or start the node with one of these",
    if self.offered.is_empty() { "none".to_owned() } else { self.offered.join(", ") }
)]
pub struct RuntimeNotOffered {
    requested: String,
    offered: Vec<String>,
}

/// The runtime of new containers. Pure.
///
/// # Errors
/// [`RuntimeNotOffered`] if the engine does not offer the requested one.
pub fn select(requested: Option<&str>, engine: &Runtimes) -> Result<String, RuntimeNotOffered> {
    match requested {
        None => Ok(engine.default.clone()),
        Some(name) if engine.offered.iter().any(|offered| offered == name) => Ok(name.to_owned()),
        Some(name) => Err(RuntimeNotOffered {
            requested: name.to_owned(),
            offered: engine.offered.clone(),
        }),
    }
}

/// The requested runtime, and whether the engine offers it now.
#[derive(Debug)]
pub(crate) struct OciRuntime {
    /// `None`: the engine's default.
    requested: Option<String>,
    /// Empty until the engine has answered.
    selected: RwLock<Result<String, RuntimeNotOffered>>,
}

impl OciRuntime {
    pub(crate) fn new(requested: Option<String>) -> Self {
        Self {
            requested,
            selected: RwLock::new(Ok(String::new())),
        }
    }

    /// The runtime to create a container with; `None`: the engine's default.
    ///
    /// # Errors
    /// [`RuntimeNotOffered`]: no container may be created.
    pub(crate) fn for_create(&self) -> Result<Option<String>, RuntimeNotOffered> {
        self.selected().map(|_| self.requested.clone())
    }

    /// The runtime for reports; empty until the engine has answered.
    pub(crate) fn selected(&self) -> Result<String, RuntimeNotOffered> {
        self.selected.read().clone()
    }

    /// Checks against the engine's offer. True if the result changed.
    pub(crate) fn update(&self, engine: &Runtimes) -> bool {
        let now = select(self.requested.as_deref(), engine);
        let mut selected = self.selected.write();
        let changed = *selected != now;
        *selected = now;
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
    fn the_requested_runtime_must_be_offered() {
        let offers = engine(&["runc", "runsc"]);
        assert_eq!(select(None, &offers), Ok("runc".to_owned()));
        assert_eq!(select(Some("runsc"), &offers), Ok("runsc".to_owned()));
        let error = select(Some("kata"), &offers).unwrap_err().to_string();
        assert!(
            error.contains("`kata`") && error.contains("runc, runsc"),
            "{error}"
        );
    }

    #[test]
    fn an_engine_that_comes_back_without_the_runtime_blocks_starts_until_it_has_it() {
        let runtime = OciRuntime::new(Some("runsc".to_owned()));
        let runsc = Ok(Some("runsc".to_owned()));
        assert_eq!(runtime.for_create(), runsc, "not checked yet");
        assert!(runtime.update(&engine(&["runc"])));
        assert!(runtime.for_create().is_err());
        assert!(!runtime.update(&engine(&["runc"])));
        assert!(runtime.update(&engine(&["runc", "runsc"])));
        assert_eq!(runtime.for_create(), runsc);
    }
}
