//! The rights beyond the default that the operator of a node allows its versions. Pure.
//!
//! Law (tested below): a version starts if and only if the node allows everything that it asks for.

use std::collections::BTreeSet;

use cless_proto::capability;
use cless_proto::endpoint::Endpoint;

/// The default allows nothing.
#[derive(Debug, Clone, Default)]
pub struct NodePolicy {
    /// Capabilities beyond those of every container (`--allow-capabilities`).
    pub capabilities: BTreeSet<String>,
    /// Destinations on this node (`--allow-egress`).
    pub egress: BTreeSet<Endpoint>,
}

impl NodePolicy {
    /// The reason why a version with these options may not run here, with the remedy; `None` if it
    /// may.
    pub(crate) fn refusal(&self, cap_add: &[String], egress: &[Endpoint]) -> Option<String> {
        let allowed = |name: &&String| {
            capability::DEFAULT.contains(&name.as_str()) || self.capabilities.contains(*name)
        };
        let capabilities = refused(cap_add.iter().filter(|name| !allowed(name)));
        let egress = refused(egress.iter().filter(|to| !self.egress.contains(*to)));
        let capabilities = capabilities.map(|list| {
            format!(
                "the capabilities {list}: allow them with --allow-capabilities {list} on the node, or \
                 deploy without --cap-add"
            )
        });
        let egress = egress.map(|list| {
            format!(
                "the destinations {list}: allow them with --allow-egress {list} on the node, or \
                 deploy without --egress"
            )
        });
        let all: Vec<String> = [capabilities, egress].into_iter().flatten().collect();
        (!all.is_empty()).then(|| format!("this node does not allow {}", all.join("; nor ")))
    }
}

/// The items as a list of the flag; `None` if there is none.
fn refused<T: ToString>(items: impl Iterator<Item = T>) -> Option<String> {
    let items: Vec<String> = items.map(|one| one.to_string()).collect();
    (!items.is_empty()).then(|| items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn everything_refused_is_named_with_its_remedy() {
        let policy = NodePolicy {
            capabilities: ["FOWNER".to_owned()].into(),
            egress: endpoints(&["db:5432"]).into_iter().collect(),
        };
        let names = ["KILL", "FOWNER", "NET_RAW", "SYS_ADMIN"].map(str::to_owned);
        let refusal = policy.refusal(&names, &endpoints(&["db:5432", "db:5433"]));
        let refusal = refusal.unwrap();
        assert!(
            refusal.contains("--allow-capabilities NET_RAW,SYS_ADMIN on"),
            "{refusal}"
        );
        assert!(refusal.contains("--allow-egress db:5433 on"), "{refusal}");
        assert_eq!(policy.refusal(&names[..2], &endpoints(&["db:5432"])), None);
    }

    proptest! {
        #[test]
        fn a_version_runs_if_all_that_it_asks_for_is_allowed(
            allowed in subsequence(capability::NAMES.to_vec(), 0..=41),
            asked in subsequence(capability::NAMES.to_vec(), 0..=41),
        ) {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let policy = NodePolicy {
                capabilities: owned(&allowed).into_iter().collect(),
                ..NodePolicy::default()
            };
            let all = asked.iter().all(|name| allowed.contains(name) || capability::DEFAULT.contains(name));
            prop_assert_eq!(policy.refusal(&owned(&asked), &[]).is_none(), all);
        }
    }
}
