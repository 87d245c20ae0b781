//! Scripts run by a model of `iptables-restore --noflush`: all of a script or nothing.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::rules::{Family, RuleInputs};
use super::*;

/// Fails like iptables if a rule, chain or target is missing.
fn restore(listing: &Listing, script: &str) -> Option<Listing> {
    let mut chains = listing.chains.clone();
    let lines: Vec<&str> = script.lines().collect();
    let ["*filter", lines @ .., "COMMIT"] = lines.as_slice() else {
        return None;
    };
    for line in lines {
        if let Some(chain) = line.strip_prefix(':') {
            chains.insert(chain.split(' ').next()?.to_owned(), Vec::new());
            continue;
        }
        let (order, rest) = line.split_once(' ')?;
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(target) = target(rule)
            && !chains.contains_key(target)
            && target.starts_with(ANY_NODE)
        {
            return None;
        }
        let rules = chains.get_mut(chain)?;
        match order {
            "-A" => rules.push(rule.to_owned()),
            "-I" => rules.insert(0, rule.to_owned()),
            "-D" => {
                let at = rules.iter().position(|one| one == rule)?;
                rules.remove(at);
            }
            "-F" => rules.clear(),
            "-X" if rules.is_empty() => {
                chains.remove(chain);
                let jumps = chains.values().flatten();
                if jumps.clone().any(|rule| target(rule) == Some(chain)) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(Listing { chains })
}

const NODE: &str = "0a1b2c3d4e5f";

fn set(plane: &str) -> RuleSet {
    let inputs = RuleInputs {
        node: NODE.to_owned(),
        bridge: "cless0a1b2c3d4e".to_owned(),
        other_bridges: Default::default(),
        proxy: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
        control_planes: [plane.parse().unwrap()].into(),
        nameservers: Default::default(),
        egress: Default::default(),
    };
    RuleSet::new(&inputs, Family::V4)
}

/// Rules of Docker, another node, a user, and a killed process of this node.
fn rule() -> impl Strategy<Value = String> {
    select(vec![
        "-j DOCKER-USER",
        "-i docker0 -o docker0 -j ACCEPT",
        "-m comment --comment \"-j CLESS-0a1b2c3d4e5f-IN\" -j ACCEPT",
        "-i cless5555555555 -j CLESS-555555555555-IN",
        "-i cless0a1b2c3d4e -j CLESS-0a1b2c3d4e5f-IN",
        "-i br-0123456789ab -j CLESS-0a1b2c3d4e5f-FWD",
    ])
    .prop_map(str::to_owned)
}

fn listing() -> impl Strategy<Value = Listing> {
    let rules = || prop::collection::vec(rule(), 0..6);
    let stale = || prop::option::of(prop::collection::vec(Just("-j RETURN".to_owned()), 0..3));
    let user = prop::option::of(rules());
    (rules(), rules(), user, stale(), stale()).prop_map(|(input, forward, user, host, fwd)| {
        let mut chains = BTreeMap::new();
        chains.insert(INPUT.to_owned(), input);
        chains.insert(FORWARD.to_owned(), forward);
        chains.insert("CLESS-555555555555-IN".to_owned(), Vec::new());
        let [in_name, fwd_name] = chain_names(NODE);
        let named = [
            (DOCKER_USER.to_owned(), user),
            (in_name, host),
            (fwd_name, fwd),
        ];
        chains.extend(
            named
                .into_iter()
                .filter_map(|(name, rules)| Some((name, rules?))),
        );
        // Rules refer only to existing chains.
        let known: Vec<String> = chains.keys().cloned().collect();
        for rules in chains.values_mut() {
            rules.retain(|rule| match target(rule) {
                Some(to) if to.starts_with("CLESS") || to == DOCKER_USER => {
                    known.iter().any(|name| name == to)
                }
                _ => true,
            });
        }
        Listing { chains }
    })
}

/// Foreign rules in their order.
fn others(listing: &Listing) -> BTreeMap<String, Vec<String>> {
    let own = chain_names(NODE);
    let mut chains = listing.chains.clone();
    chains.retain(|name, _| !own.contains(name));
    for rules in chains.values_mut() {
        rules.retain(|rule| !own.iter().any(|name| target(rule) == Some(name)));
    }
    chains
}

proptest! {
    #[test]
    fn rules_are_in_force_whatever_existed_before(before in listing()) {
        let set = set("10.0.0.5:7070");
        let script = before.enforce(&set, None).expect("no rules of this process exist");
        let after = restore(&before, &script).expect("iptables accepts it");
        prop_assert!(after.holds(&set));
        prop_assert_eq!(others(&before), others(&after));
        let own = after.own(&set);
        prop_assert_eq!(after.enforce(&set, Some(&own)), None);
    }

    #[test]
    fn removal_leaves_exactly_the_foreign_rules(before in listing()) {
        let after = match before.remove(NODE) {
            Some(script) => restore(&before, &script).expect("iptables accepts it"),
            None => before.clone(),
        };
        prop_assert_eq!(&after.chains, &others(&before));
        prop_assert_eq!(after.remove(NODE), None);
    }

    /// A removed rule, a rule before the jump, another first chain: each is detected.
    #[test]
    fn foreign_changes_are_detected_and_repaired(
        before in listing(), what in 0..4usize, at in any::<prop::sample::Index>(),
    ) {
        let set = set("10.0.0.5:7070");
        let script = before.enforce(&set, None).expect("to be set");
        let mut changed = restore(&before, &script).expect("iptables accepts it");
        let own = changed.own(&set);
        let from = changed.forward();
        match what {
            0 => {
                let rules = changed.chains.get_mut(&set.host.name).expect("set");
                rules.remove(at.index(rules.len()));
            }
            1 => changed.chains.get_mut(INPUT).expect("there").clear(),
            2 => changed.chains.get_mut(from).expect("there").insert(0, "-j ACCEPT".into()),
            _ => {
                let rules = changed.chains.get_mut(FORWARD).expect("there");
                rules.insert(0, "-m mark --mark 1 -j ACCEPT".into());
                if from == FORWARD {
                    rules.remove(0);
                    rules.insert(0, "-j DOCKER-USER".into());
                }
                changed.chains.entry(DOCKER_USER.to_owned()).or_default();
            }
        }
        let script = changed.enforce(&set, Some(&own)).expect("detected");
        let again = restore(&changed, &script).expect("iptables accepts it");
        prop_assert!(again.holds(&set));
    }

    #[test]
    fn a_listing_is_total(text in "(?s).{0,200}") {
        let _ = Listing::parse(&text);
    }
}

#[test]
fn another_control_plane_yields_another_rule_set() {
    let (old, new) = (set("10.0.0.5:7070"), set("10.0.0.6:7070"));
    let empty = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:4]\nCOMMIT\n# done";
    let empty = Listing::parse(empty);
    let before = restore(&empty, &empty.enforce(&old, None).unwrap()).unwrap();
    let after = restore(&before, &before.enforce(&new, None).unwrap()).unwrap();
    assert!(after.holds(&new));
    assert!(
        after.own(&new)[1]
            .iter()
            .any(|rule| rule.contains("10.0.0.6"))
    );
    assert!(
        !after.own(&new)[1]
            .iter()
            .any(|rule| rule.contains("10.0.0.5"))
    );
    assert_eq!(restore(&after, &after.remove(NODE).unwrap()), Some(empty));
}
