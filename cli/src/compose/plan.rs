//! The contents of a compose file, as services of cless and remarks.

use std::collections::BTreeMap;
use std::fmt;

use cless_proto::v1 as pb;

/// A place in a compose file, and the problem or the remedy there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// From 1.
    pub(crate) line: usize,
    /// The keys, such as `services.web.ports`; empty for the whole file.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// The surroundings of a compose file.
pub(crate) struct Sources<'a> {
    /// The variables that a file can use: those of the process, then those of `.env`.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of an env file by the path as written; `None` if it does not exist.
    pub(crate) env_file: &'a dyn Fn(&str) -> Result<Option<String>, String>,
}

/// The contents of a compose file.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) services: Vec<Import>,
    /// By line.
    pub(crate) remarks: Vec<Remark>,
}

/// A service to import, with one version.
#[derive(Debug)]
pub(crate) struct Import {
    /// The id of the service in cless.
    pub(crate) id: String,
    pub(crate) spec: pb::VersionSpec,
    pub(crate) settings: pb::ServiceSettings,
    pub(crate) labels: BTreeMap<String, String>,
    pub(super) origins: Origins,
}

impl Import {
    /// The place that set a field of the API, such as `version.spec.env[A]`.
    pub(crate) fn origin(&self, field: &str) -> &Remark {
        self.origins.find(field)
    }
}

/// The places that set fields.
#[derive(Debug)]
pub(super) struct Origins {
    pub(super) by_field: BTreeMap<String, Remark>,
    pub(super) service: Remark,
}

impl Origins {
    fn find(&self, field: &str) -> &Remark {
        let mut rest = field;
        loop {
            if let Some(found) = self.by_field.get(rest) {
                return found;
            }
            match rest.rfind(['[', '.']) {
                Some(at) => rest = &rest[..at],
                None => return &self.service,
            }
        }
    }
}
