//! PURE: from the filter table as it is to the table with this node's rules in it, and back.
//!
//! A [`Listing`] is what `iptables-save` printed; the answers are scripts for
//! `iptables-restore --noflush`, which does all of a script or nothing.
//!
//! Whether the rules are in force is not told by comparing them with how we would write them, for each
//! release of iptables prints them in words of its own. What it printed right after they were set is
//! kept ([`Listing::own`]), and compared with what it prints now.
//!
//! Laws: lines of others are neither changed nor moved; a second plan changes nothing; after removal
//! the listing is what it was before; jumps stand before all that is not of cless.

use std::collections::BTreeMap;

use super::rules::{RuleSet, chain_names};

/// Where packets to this host pass.
const INPUT: &str = "INPUT";
/// Where packets through it pass.
const FORWARD: &str = "FORWARD";
/// What Docker calls first from FORWARD and never rewrites, so that rules in it survive its restarts.
const DOCKER_USER: &str = "DOCKER-USER";
/// What the chains of all nodes begin with. Those of several nodes may stand in any order, because each
/// is entered from its own bridge only.
const ANY_NODE: &str = "CLESS-";

/// The filter table: its chains, and the rules in each, in order, without `-A CHAIN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    chains: BTreeMap<String, Vec<String>>,
}

/// The rules in a node's own chains, as iptables prints them.
pub(super) type Own = [Vec<String>; 2];

impl Listing {
    /// Total: a line that is none of the table's is skipped.
    pub(super) fn parse(saved: &str) -> Self {
        let mut chains = BTreeMap::<String, Vec<String>>::new();
        for line in saved.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                chains.entry(name.to_owned()).or_default();
            } else if let Some((chain, rule)) = line
                .strip_prefix("-A ")
                .and_then(|rest| rest.split_once(' '))
            {
                let rules = chains.entry(chain.to_owned()).or_default();
                rules.push(rule.trim_end().to_owned());
            }
        }
        Self { chains }
    }

    fn rules(&self, chain: &str) -> &[String] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// What is in the chains of a rule set.
    pub(super) fn own(&self, set: &RuleSet) -> Own {
        [&set.host, &set.forward].map(|chain| self.rules(&chain.name).to_vec())
    }

    /// Whether a rule set that was just applied is there: every rule of it, and the jumps.
    pub(super) fn holds(&self, set: &RuleSet) -> bool {
        let all = [&set.host, &set.forward];
        let there = |chain| self.rules(chain).len();
        all.iter()
            .all(|chain| there(&chain.name) == set.lines(chain).len())
            && self.is_entered(set)
    }

    /// Whether both chains are entered, once, before anything of others can let a packet pass.
    fn is_entered(&self, set: &RuleSet) -> bool {
        let entrances = [(&set.host, INPUT), (&set.forward, self.forward())];
        entrances.iter().all(|(chain, from)| {
            let jumps: Vec<_> = self.jumps_to(&chain.name).collect();
            let first = self.rules(from).iter();
            let first = first.take_while(|rule| is_jump(rule, ANY_NODE));
            jumps.len() == 1
                && jumps[0].0 == *from
                && first.clone().any(|rule| rule == jumps[0].1)
                && jumps[0].1.contains(&set.jump(chain))
        })
    }

    /// Every rule that goes to a chain, with the chain it is in.
    fn jumps_to<'a>(&'a self, to: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.chains.iter().flat_map(move |(chain, rules)| {
            let found = rules.iter().filter(move |rule| target(rule) == Some(to));
            found.map(|rule| (chain.as_str(), rule.as_str()))
        })
    }

    /// The chain that packets through this host enter first: Docker's for the user if it is called
    /// before anything else, as Docker sees to, else FORWARD itself.
    fn forward(&self) -> &'static str {
        let mut others = self.rules(FORWARD).iter();
        let first = others.find(|rule| !is_jump(rule, ANY_NODE));
        match first {
            Some(rule) if rule == "-j DOCKER-USER" && self.chains.contains_key(DOCKER_USER) => {
                DOCKER_USER
            }
            _ => FORWARD,
        }
    }

    /// The script that puts a rule set in force; none if it is. `printed` is what its chains held right
    /// after it was applied the last time.
    pub(super) fn enforce(&self, set: &RuleSet, printed: Option<&Own>) -> Option<String> {
        if printed == Some(&self.own(set)) && self.holds(set) {
            return None;
        }
        let chains = [&set.host, &set.forward];
        let mut lines = Vec::new();
        // Makes the chain, or empties it.
        lines.extend(chains.map(|chain| format!(":{} - [0:0]", chain.name)));
        for chain in chains {
            lines.extend(self.unjump(&chain.name));
        }
        for chain in chains {
            let rules = set.lines(chain).into_iter();
            lines.extend(rules.map(|rule| format!("-A {} {rule}", chain.name)));
        }
        lines.push(format!("-I {INPUT} {}", set.jump(&set.host)));
        lines.push(format!("-I {} {}", self.forward(), set.jump(&set.forward)));
        Some(script(&lines))
    }

    /// The script that removes all that is of a node; none if nothing is.
    pub(super) fn remove(&self, node: &str) -> Option<String> {
        let names = chain_names(node);
        let there: Vec<_> = names
            .iter()
            .filter(|name| self.chains.contains_key(*name))
            .collect();
        if there.is_empty() {
            return None;
        }
        let mut lines: Vec<String> = names.iter().flat_map(|name| self.unjump(name)).collect();
        lines.extend(there.iter().map(|name| format!("-F {name}")));
        lines.extend(there.iter().map(|name| format!("-X {name}")));
        Some(script(&lines))
    }

    fn unjump<'a>(&'a self, to: &'a str) -> impl Iterator<Item = String> {
        self.jumps_to(to)
            .map(|(chain, rule)| format!("-D {chain} {rule}"))
    }
}

/// Where a rule sends what it matches.
fn target(rule: &str) -> Option<&str> {
    let (before, target) = rule.rsplit_once(' ').unwrap_or(("", rule));
    matches!(before.rsplit(' ').next(), Some("-j" | "-g")).then_some(target)
}

fn is_jump(rule: &str, to: &str) -> bool {
    target(rule).is_some_and(|target| target.starts_with(to))
}

fn script(lines: &[String]) -> String {
    format!("*filter\n{}\nCOMMIT\n", lines.join("\n"))
}

#[cfg(test)]
mod tests;
