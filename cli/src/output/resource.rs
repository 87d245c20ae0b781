//! How each resource looks: a row of a list, a page of its own, and the lines of a failure.
//!
//! Pure. Whatever a container, an engine or a person wrote is cleaned before it is placed.

mod node;
mod service;
pub(super) mod traffic;
pub(super) mod version;

use super::table::View;

/// A message of the API that can be shown.
pub(crate) trait Resource: prost::Message {
    /// Its full protobuf name.
    const MESSAGE: &'static str;
    /// What several are called.
    const PLURAL: &'static str;
    /// The heading of a list.
    const COLUMNS: &'static [&'static str];

    /// Its resource name.
    fn name(&self) -> &str;
    /// Its row of a list.
    fn row(&self, view: &View) -> Vec<String>;
    /// Its own page.
    fn detail(&self, view: &View) -> String;
}

/// `STATE_NO_TRAFFIC` reads `NO_TRAFFIC`.
fn short(name: &'static str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
