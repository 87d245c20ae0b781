//! The presentation of each resource as a row of a list and as a page.
//!
//! Pure. Text of containers, engines and users passes [`crate::text::clean`].

mod node;
mod service;
pub(super) mod traffic;
mod trust;
pub(super) mod version;

use super::table::RenderContext;

/// A message of the API that can be printed.
pub(crate) trait Resource: prost::Message {
    /// The full protobuf name.
    const MESSAGE: &'static str;
    /// The plural noun.
    const PLURAL: &'static str;
    /// The column headers of a list.
    const COLUMNS: &'static [&'static str];

    /// The resource name.
    fn name(&self) -> &str;
    /// The row in a list.
    fn row(&self, context: &RenderContext) -> Vec<String>;
    /// The page with all details.
    fn detail(&self, context: &RenderContext) -> String;
}

/// Shortens `STATE_NO_TRAFFIC` to `NO_TRAFFIC`.
pub(super) fn short(name: &'static str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
