//! Computes the scripts that add this node's rules to the filter table and remove them. Pure.
//!
//! A [`Listing`] is the output of `iptables-save`; the results are scripts for `iptables-restore
//! --noflush`, which applies all of a script or nothing.
//!
//! Releases of iptables print the same rule differently, so a listing is not compared with the
//! rules as written. Instead, the listing right after a change is kept ([`Listing::own`]) and
//! compared with later ones.
//!
//! Laws: foreign lines are neither changed nor moved; a second plan changes nothing; removal
//! restores the original listing; jumps precede all foreign rules.

use std::collections::BTreeMap;

use super::rules::{RuleSet, chain_names};

/// Chain of packets to this host.
const INPUT: &str = "INPUT";
/// Chain of forwarded packets.
const FORWARD: &str = "FORWARD";
/// Chain that Docker jumps to first from FORWARD and never rewrites; its rules survive restarts of
/// Docker.
const DOCKER_USER: &str = "DOCKER-USER";
/// Prefix of the chains of all nodes. Their order is irrelevant, because each is entered only from
/// its own bridge.
const ANY_NODE: &str = "CLESS-";

/// The filter table: the rules of each chain in order, without `-A CHAIN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    chains: BTreeMap<String, Vec<String>>,
}

/// The rules in a node's own chains, as printed by iptables.
pub(super) type PrintedRules = [Vec<String>; 2];

impl Listing {
    /// Parses a listing; unknown lines are skipped.
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

    /// The listed rules in the chains of a rule set.
    pub(super) fn own(&self, set: &RuleSet) -> PrintedRules {
        [&set.host, &set.forward].map(|chain| self.rules(&chain.name).to_vec())
    }

    /// Whether a rule set that was just applied is complete, including the jumps.
    pub(super) fn holds(&self, set: &RuleSet) -> bool {
        let all = [&set.host, &set.forward];
        let there = |chain| self.rules(chain).len();
        all.iter()
            .all(|chain| there(&chain.name) == set.lines(chain).len())
            && self.is_entered(set)
    }

    /// Whether each chain is entered exactly once, before any foreign rule can accept a packet.
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

    /// All rules that jump to a chain, with the chain they are in.
    fn jumps_to<'a>(&'a self, to: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.chains.iter().flat_map(move |(chain, rules)| {
            let found = rules.iter().filter(move |rule| target(rule) == Some(to));
            found.map(|rule| (chain.as_str(), rule.as_str()))
        })
    }

    /// The first chain of forwarded packets: DOCKER-USER if Docker jumps to it first, otherwise
    /// FORWARD.
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

    /// The script that applies a rule set; `None` if it is applied. `printed` is the listing of its
    /// chains right after the last application.
    pub(super) fn enforce(&self, set: &RuleSet, printed: Option<&PrintedRules>) -> Option<String> {
        if printed == Some(&self.own(set)) && self.holds(set) {
            return None;
        }
        let chains = [&set.host, &set.forward];
        let mut lines = Vec::new();
        // Creates or empties the chain.
        lines.extend(chains.map(|chain| format!(":{} - [0:0]", chain.name)));
        for chain in chains {
            lines.extend(self.remove_jumps(&chain.name));
        }
        for chain in chains {
            let rules = set.lines(chain).into_iter();
            lines.extend(rules.map(|rule| format!("-A {} {rule}", chain.name)));
        }
        lines.push(format!("-I {INPUT} {}", set.jump(&set.host)));
        lines.push(format!("-I {} {}", self.forward(), set.jump(&set.forward)));
        Some(script(&lines))
    }

    /// The script that removes everything of a node; `None` if nothing exists.
    pub(super) fn remove(&self, node: &str) -> Option<String> {
        let names = chain_names(node);
        let there: Vec<_> = names
            .iter()
            .filter(|name| self.chains.contains_key(*name))
            .collect();
        if there.is_empty() {
            return None;
        }
        let mut lines: Vec<String> = names
            .iter()
            .flat_map(|name| self.remove_jumps(name))
            .collect();
        lines.extend(there.iter().map(|name| format!("-F {name}")));
        lines.extend(there.iter().map(|name| format!("-X {name}")));
        Some(script(&lines))
    }

    fn remove_jumps<'a>(&'a self, to: &'a str) -> impl Iterator<Item = String> {
        self.jumps_to(to)
            .map(|(chain, rule)| format!("-D {chain} {rule}"))
    }
}

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
