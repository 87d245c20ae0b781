//! Capabilities that a version adds.
//!
//! Each name is known and has one spelling. Every container has the capabilities of
//! [`capability::DEFAULT`]; the nodes decide about the others.

use std::collections::BTreeSet;

use cless_proto::capability;
use serde::{Deserialize, Serialize};

use super::list::read_list;
use crate::domain::error::{Reason, Violations};

/// More than any program needs.
const CAPABILITIES_MAX: usize = 16;

/// Capabilities beyond those of every container, such as `NET_RAW`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeSet<String>);

impl Capabilities {
    /// Validates the names at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: Vec<String>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let read = |name: &str| parse(name).map(str::to_owned);
        read_list(field, &input, CAPABILITIES_MAX, violations, read).map(Self)
    }

    /// The names in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn parse(name: &str) -> Result<&'static str, Reason> {
    capability::parse(name).ok_or_else(|| {
        let shown: String = name.chars().take(40).collect();
        Reason::new(format!(
            "`{}` is not a capability: give names of capabilities(7) one by one, such as `NET_RAW` or `FOWNER`",
            shown.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_and_given_one_by_one() {
        let read = |names: &[&str]| {
            let mut violations = Violations::new();
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let read = Capabilities::new("cap_add", names, &mut violations);
            let fields = violations
                .finish()
                .map_err(|error| error.violations()[0].field.clone());
            fields.map(|()| read.unwrap().iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            read(&["cap_net_raw", "FOWNER", "net_raw"]).as_deref(),
            Ok("FOWNER NET_RAW")
        );
        for bad in ["ALL", "", "NET_RAW,FOWNER", "root", "-NET_RAW"] {
            assert_eq!(
                read(&["FOWNER", bad]),
                Err("cap_add[1]".to_owned()),
                "{bad}"
            );
        }
        assert_eq!(read(&["KILL"; 17]), Err("cap_add".to_owned()));
    }
}
