use super::*;
use proptest::prelude::*;

fn identity(id: &str, name: &str) -> Identity {
    Identity {
        id: id.into(),
        name: named(name),
        version: "1".into(),
    }
}

fn named(name: &str) -> NodeName {
    NodeName::parse(name).expect("a label")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

#[test]
fn a_live_nodes_name_is_refused_and_a_dead_ones_is_free() {
    let mut registry = Registry::default();
    let first = registry
        .connect(identity("1", "a"), "b".into(), at(0))
        .expect("free");
    let taken = registry.connect(identity("2", "a"), "b".into(), at(1));
    assert_eq!(taken, Err(NameTaken { name: named("a") }));
    let report = registry.report(identity("2", "a"), "b".into(), Report::default(), at(1));
    assert!(report.is_err());
    assert!(registry.disconnect("1", first, at(2)));
    registry
        .connect(identity("2", "a"), "b".into(), at(3))
        .expect("free now");
    let ids: Vec<_> = registry
        .nodes()
        .iter()
        .map(|node| node.identity.id.clone())
        .collect();
    assert_eq!(ids, ["2"]);
}

#[test]
fn the_end_of_a_replaced_stream_changes_nothing() {
    let mut registry = Registry::default();
    let old = registry
        .connect(identity("1", "a"), "b".into(), at(0))
        .expect("free");
    let new = registry
        .connect(identity("1", "a"), "b".into(), at(1))
        .expect("own");
    assert!(!registry.disconnect("1", old, at(2)));
    registry.refused("1", old, None, "late".into());
    let node = registry.named(&named("a")).expect("known");
    assert!(node.is_connected() && node.refusal.is_none());
    assert!(registry.disconnect("1", new, at(3)));
}

#[test]
fn a_new_boot_voids_what_the_old_one_reported() {
    let mut registry = Registry::default();
    let report = |registry: &mut Registry, boot: &str| {
        registry
            .report(identity("1", "a"), boot.into(), Report::default(), at(0))
            .expect("free");
    };
    report(&mut registry, "b1");
    registry
        .connect(identity("1", "a"), "b1".into(), at(1))
        .expect("own");
    assert!(registry.named(&named("a")).expect("known").report.is_some());
    registry
        .connect(identity("1", "a"), "b2".into(), at(1))
        .expect("own");
    assert!(registry.named(&named("a")).expect("known").report.is_none());
}

#[test]
fn a_stale_node_is_forgotten_in_the_end_and_a_connected_one_never() {
    let mut registry = Registry::default();
    let stream = registry
        .connect(identity("1", "a"), "b".into(), at(0))
        .expect("free");
    assert!(!registry.forget(at(100_000)));
    registry.disconnect("1", stream, at(100_000));
    assert!(!registry.forget(at(100_299)));
    assert!(registry.forget(at(100_300)));
    assert!(registry.nodes().is_empty());
}

#[test]
fn propagation_counts_connected_nodes_of_the_epoch_only() {
    let mut registry = Registry::default();
    let cursor = |epoch: &str, revision| Cursor::new(epoch, revision, [0; 32]);
    let stream = |registry: &mut Registry, name: &str, applied: Option<Cursor>| {
        let stream = registry
            .connect(identity(name, name), "b".into(), at(0))
            .expect("free");
        if let Some(applied) = applied {
            registry.applied(name, stream, applied, Vec::new());
        }
        stream
    };
    stream(&mut registry, "new", None);
    stream(&mut registry, "behind", Some(cursor("e", 6)));
    stream(&mut registry, "there", Some(cursor("e", 7)));
    stream(&mut registry, "ahead", Some(cursor("e", 8)));
    stream(&mut registry, "elsewhere", Some(cursor("of old", 99)));
    let gone = stream(&mut registry, "gone", Some(cursor("e", 6)));
    let refusing = stream(&mut registry, "refusing", Some(cursor("e", 6)));
    registry.disconnect("gone", gone, at(1));
    registry.refused("refusing", refusing, Some(cursor("e", 6)), "no".into());
    let found = registry.propagation("e", 7);
    assert_eq!(found.applied, 2);
    let pending = ["behind", "elsewhere", "new", "refusing"].map(named);
    assert_eq!(found.pending, pending);
    assert_eq!(registry.propagation("e", 6).applied, 4);
    assert_eq!(registry.propagation("f", 0).applied, 0, "a new epoch");
    let nobody = Registry::default().propagation("e", 7);
    assert_eq!(nobody, Propagation::default());
}

#[test]
fn a_node_is_taken_from_where_it_connected_last() {
    let mut registry = Registry::default();
    let here = registry
        .connect(identity("1", "a"), "b".into(), at(10))
        .expect("free");
    let there = |connected, connect, seen| {
        let mut node = Node::new(identity("1", "a"), "b".into(), at(0));
        node.connect_time = Some(at(connect));
        node.refusal = Some("there".into());
        BTreeMap::from([("1".to_owned(), node.elsewhere(connected, at(seen)))])
    };
    let is_there = |registry: &Registry| {
        let node = registry.named(&named("a")).expect("known");
        (node.refusal.is_some(), node.is_connected())
    };
    registry.set_elsewhere(there(true, 5, 11));
    assert_eq!(is_there(&registry), (false, true), "it came here later");
    registry.set_elsewhere(there(true, 20, 20));
    assert_eq!(is_there(&registry), (true, true), "it went there later");
    registry.disconnect("1", here, at(21));
    registry.set_elsewhere(there(true, 5, 22));
    assert_eq!(is_there(&registry), (true, true), "only there");
    registry.set_elsewhere(there(false, 5, 22));
    assert_eq!(is_there(&registry), (false, false), "gone; here last");
}

#[test]
fn a_name_that_a_node_elsewhere_uses_is_refused() {
    let mut registry = Registry::default();
    let there = |connected| {
        let node = Node::new(identity("1", "a"), "b".into(), at(0));
        BTreeMap::from([("1".to_owned(), node.elsewhere(connected, at(0)))])
    };
    registry.set_elsewhere(there(true));
    let taken = registry.connect(identity("2", "a"), "b".into(), at(1));
    assert_eq!(taken, Err(NameTaken { name: named("a") }));
    registry.set_elsewhere(there(false));
    registry
        .connect(identity("2", "a"), "b".into(), at(2))
        .expect("its holder is gone");
    let ids: Vec<_> = registry.nodes().iter().map(|n| &*n.identity.id).collect();
    assert_eq!(ids, ["2"], "one node a name");
}

proptest! {
    /// Names are unique, and a connected node is never pushed out.
    #[test]
    fn names_stay_unique(
        steps in proptest::collection::vec((0..4u8, 0..4u8, 0..3u8), 1..60),
    ) {
        let mut registry = Registry::default();
        let mut live: BTreeMap<String, (NodeName, StreamId)> = BTreeMap::new();
        for (tick, (id, name, what)) in (0u64..).zip(steps) {
            let (id, name) = (format!("id{id}"), named(&format!("n{name}")));
            match what {
                0 => {
                    let taken = live.iter().any(|(i, (n, _))| *i != id && *n == name);
                    let got = registry.connect(Identity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), at(tick));
                    prop_assert_eq!(got.is_err(), taken);
                    if let Ok(stream) = got {
                        live.insert(id, (name, stream));
                    }
                }
                1 => {
                    let renamed = registry.report(
                        Identity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), Report::default(), at(tick));
                    if let (Ok(()), Some(entry)) = (renamed, live.get_mut(&id)) {
                        entry.0 = name;
                    }
                }
                _ => {
                    if let Some((_, stream)) = live.remove(&id) {
                        prop_assert!(registry.disconnect(&id, stream, at(tick)));
                    }
                }
            }
            let nodes = registry.nodes();
            prop_assert!(nodes.windows(2).all(|w| w[0].identity.name < w[1].identity.name));
            let connected = nodes.iter().filter(|node| node.is_connected()).count();
            prop_assert_eq!(connected, live.len());
        }
    }
}
