//! The list of contexts. Pure.

use serde::Serialize;

use super::table::table;
use crate::text;

/// A context as it is shown: without the secret of its token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContextEntry {
    pub(crate) name: String,
    pub(crate) current: bool,
    pub(crate) servers: Vec<String>,
    pub(crate) ca_fingerprints: Vec<String>,
    /// The resource name; `None` after a logout.
    pub(crate) token: Option<String>,
}

/// The table of contexts.
pub(super) fn screen(entries: &[ContextEntry]) -> String {
    let rows = entries.iter().map(|entry| {
        let token = entry.token.clone().unwrap_or_default();
        vec![
            entry.name.clone(),
            text::or_dash(if entry.current { "*" } else { "" }.to_owned()),
            entry.servers.join(","),
            text::or_dash(token),
        ]
    });
    table(&["NAME", "CURRENT", "SERVER", "TOKEN"], rows)
}
