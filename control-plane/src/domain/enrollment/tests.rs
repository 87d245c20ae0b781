use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn start() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn token(spent: Option<(&str, u8)>) -> PresentedToken {
    PresentedToken {
        name: None,
        expire_time: start().plus(TOKEN_LIFETIME),
        spent: spent.map(|(id, key)| (id.to_owned(), [key; 32])),
    }
}

fn enrolled(id: &str, called: Option<&str>, key: u8) -> Enrollment {
    Enrollment {
        id: id.to_owned(),
        name: called.map(name),
        key: [key; 32],
        enroll_time: start(),
        expire_time: start().plus(CERTIFICATE_LIFETIME),
    }
}

fn request(id: &str, called: &str, key: u8) -> Join {
    Join {
        id: id.to_owned(),
        name: name(called),
        key: [key; 32],
        node_time: start(),
    }
}

#[test]
fn a_join_is_refused_for_each_reason() {
    let for_b = PresentedToken {
        name: Some(name("b")),
        ..token(None)
    };
    let by_id = |of: Enrollment| Known {
        by_id: Some(of),
        ..Known::default()
    };
    let by_name = Known {
        by_name: Some(enrolled("2", Some("a"), 2)),
        ..Known::default()
    };
    let by_key = Known {
        by_key: Some(enrolled("2", Some("b"), 1)),
        ..Known::default()
    };
    let none = Known::default;
    for (token, known, expected) in [
        (None, none(), Refusal::TokenUnknown),
        (Some(token(Some(("2", 1)))), none(), Refusal::TokenSpent),
        (Some(token(Some(("1", 2)))), none(), Refusal::TokenSpent),
        (Some(for_b), none(), Refusal::TokenForName(name("b"))),
        (Some(token(None)), by_name, Refusal::NameTaken(name("a"))),
        (Some(token(None)), by_key, Refusal::KeyTaken),
        (
            Some(token(None)),
            by_id(enrolled("1", Some("a"), 2)),
            Refusal::IdTaken,
        ),
        (
            Some(token(None)),
            by_id(enrolled("1", None, 2)),
            Refusal::IdTaken,
        ),
        (
            Some(token(None)),
            by_id(enrolled("1", Some("b"), 1)),
            Refusal::Renamed(name("b")),
        ),
        (
            Some(token(Some(("1", 1)))),
            by_id(enrolled("1", None, 1)),
            Refusal::Removed,
        ),
    ] {
        let refused = join(token.as_ref(), &known, request("1", "a", 1), start());
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn a_lost_answer_is_repeated_until_the_token_expires() {
    let spent = token(Some(("1", 1)));
    let known = Known {
        by_id: Some(enrolled("1", Some("a"), 1)),
        by_name: Some(enrolled("1", Some("a"), 1)),
        by_key: Some(enrolled("1", Some("a"), 1)),
    };
    let again = |after: Duration| {
        let now = start().plus(after);
        let request = Join {
            node_time: now,
            ..request("1", "a", 1)
        };
        join(Some(&spent), &known, request, now)
    };
    let repeated = again(14 * MINUTE).unwrap();
    assert_eq!(repeated.enroll_time, start());
    assert_eq!(
        again(15 * MINUTE),
        Err(Refusal::TokenExpired(spent.expire_time))
    );
}

#[test]
fn a_removed_node_joins_again_with_its_old_key_under_any_free_name() {
    let known = Known {
        by_id: Some(enrolled("1", None, 1)),
        by_key: Some(enrolled("1", None, 1)),
        ..Known::default()
    };
    let joined = join(Some(&token(None)), &known, request("1", "new", 1), start());
    assert_eq!(joined.unwrap().name, Some(name("new")));
}

#[test]
fn clocks_may_differ_by_an_hour() {
    for (ahead, behind) in [(true, false), (false, true)] {
        let at = |by: Duration| match ahead {
            true => start().plus(by),
            false => start().minus(by),
        };
        let known = enrolled("1", Some("a"), 1);
        assert!(renew(Some(&known), at(HOUR), start()).is_ok(), "{behind}");
        let refused = renew(Some(&known), at(2 * HOUR), start()).unwrap_err();
        let text = refused.to_string();
        for clock in [at(2 * HOUR), start()] {
            assert!(text.contains(&clock.to_string()), "{text}");
        }
    }
}

#[test]
fn an_expired_certificate_renews_for_90_days() {
    let known = enrolled("1", Some("a"), 1);
    for (days, renews) in [(0, true), (2, true), (91, true), (92, false), (4000, false)] {
        let now = start().plus(days * DAY);
        let renewed = renew(Some(&known), now, now);
        assert_eq!(renewed.is_ok(), renews, "{days} days: {renewed:?}");
        if let Ok((renewed, name)) = renewed {
            assert_eq!(renewed.expire_time, now.plus(CERTIFICATE_LIFETIME));
            assert_eq!(Some(name), renewed.name);
        }
    }
    assert_eq!(renew(None, start(), start()), Err(Refusal::NotEnrolled));
    let removed = enrolled("1", None, 1);
    assert_eq!(
        renew(Some(&removed), start(), start()),
        Err(Refusal::Removed)
    );
}

/// A cluster as the store keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cluster {
    tokens: BTreeMap<u8, PresentedToken>,
    nodes: BTreeMap<String, Enrollment>,
}

#[derive(Debug, Clone)]
enum Event {
    Token(u8, Option<u8>),
    Join {
        token: u8,
        id: u8,
        name: u8,
        key: u8,
        skew: i8,
    },
    Renew {
        key: u8,
    },
    Remove {
        name: u8,
    },
    Wait(u8),
}

fn label(of: u8) -> NodeName {
    name(&format!("n{of}"))
}

impl Cluster {
    fn find(&self, matches: impl Fn(&Enrollment) -> bool) -> Option<Enrollment> {
        self.nodes.values().find(|node| matches(node)).cloned()
    }

    /// Returns whether the event was accepted.
    fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        match *event {
            Event::Token(token, only) => {
                let new = PresentedToken {
                    name: only.map(label),
                    expire_time: now.plus(TOKEN_LIFETIME),
                    spent: None,
                };
                self.tokens.entry(token).or_insert(new);
                true
            }
            Event::Join {
                token,
                id,
                name,
                key,
                skew,
            } => {
                let skewed = now.plus(MINUTE * skew.unsigned_abs().into());
                let request = Join {
                    id: id.to_string(),
                    name: label(name),
                    key: [key; 32],
                    node_time: skewed,
                };
                let known = Known {
                    by_id: self.nodes.get(&request.id).cloned(),
                    by_name: self.find(|node| node.name.as_ref() == Some(&request.name)),
                    by_key: self.find(|node| node.key == request.key),
                };
                let Ok(joined) = join(self.tokens.get(&token), &known, request, now) else {
                    return false;
                };
                let spent = Some((joined.id.clone(), joined.key));
                self.tokens.get_mut(&token).expect("presented").spent = spent;
                self.nodes.insert(joined.id.clone(), joined);
                true
            }
            Event::Renew { key } => {
                let known = self.find(|node| node.key == [key; 32]);
                match renew(known.as_ref(), now, now) {
                    Ok((renewed, _)) => self.nodes.insert(renewed.id.clone(), renewed).is_some(),
                    Err(_) => false,
                }
            }
            Event::Remove { name } => {
                let node = self.find(|node| node.name == Some(label(name)));
                match node.and_then(|node| self.nodes.get_mut(&node.id)) {
                    Some(node) => node.name.take().is_some(),
                    None => false,
                }
            }
            Event::Wait(_) => true,
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..4, proptest::option::of(0_u8..3))
            .prop_map(|(token, only)| Event::Token(token, only)),
        (0_u8..4, 0_u8..3, 0_u8..3, 0_u8..3, -90_i8..90).prop_map(
            |(token, id, name, key, skew)| {
                Event::Join {
                    token,
                    id,
                    name,
                    key,
                    skew,
                }
            }
        ),
        (0_u8..4, 0_u8..3).prop_map(|(token, of)| Event::Join {
            token,
            id: of,
            name: of,
            key: of,
            skew: 0
        }),
        (0_u8..3).prop_map(|key| Event::Renew { key }),
        (0_u8..3).prop_map(|name| Event::Remove { name }),
        (0_u8..20).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn the_laws_hold_after_any_events(events in proptest::collection::vec(event(), 0..60)) {
        let mut now = start();
        let mut cluster = Cluster::default();
        let mut keys = BTreeMap::new();
        for event in events {
            if let Event::Wait(minutes) = event {
                now = now.plus(MINUTE * minutes.into());
            }
            let before = cluster.clone();
            let accepted = cluster.apply(&event, now);
            if !accepted {
                prop_assert_eq!(&cluster, &before, "a refusal changes nothing");
            }
            for (id, node) in &cluster.nodes {
                prop_assert_eq!(*keys.entry(id.clone()).or_insert(node.key), node.key);
            }
            for (token, old) in &before.tokens {
                if old.spent.is_some() {
                    prop_assert_eq!(&old.spent, &cluster.tokens[token].spent);
                }
            }
            let mut names: Vec<_> = cluster.nodes.values().filter_map(|of| of.name.clone()).collect();
            let mut used: Vec<_> = cluster.nodes.values().map(|of| of.key).collect();
            let (named, keyed) = (names.len(), used.len());
            names.sort();
            names.dedup();
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!((named, keyed), (names.len(), used.len()));
            if accepted && matches!(event, Event::Join { .. }) {
                let joined = cluster.clone();
                prop_assert!(cluster.apply(&event, now), "an answer is repeated");
                prop_assert_eq!(&cluster, &joined);
            }
        }
    }
}
