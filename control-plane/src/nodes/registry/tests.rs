use super::*;
use proptest::prelude::*;

fn identity(id: &str, name: &str) -> NodeIdentity {
    NodeIdentity {
        id: id.into(),
        name: node_name(name),
        version: "1".into(),
    }
}

fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a label")
}

/// Connects a node that must be accepted.
fn connect(registry: &mut Registry, id: &str, name: &str, boot: &str, seconds: u64) -> StreamId {
    let connected = registry.connect(identity(id, name), boot.into(), at(seconds));
    connected.expect("the name is free")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

#[test]
fn a_connected_nodes_name_is_taken_and_a_stale_ones_is_free() {
    let mut registry = Registry::default();
    let first = connect(&mut registry, "1", "a", "b", 0);
    let taken = registry.connect(identity("2", "a"), "b".into(), at(1));
    let name = node_name("a");
    assert_eq!(taken, Err(NameTaken { name }));
    let report = registry.report(&identity("2", "a"), "b", NodeReport::default(), at(1));
    assert!(report.is_err());
    assert!(registry.disconnect("1", first, at(2)));
    connect(&mut registry, "2", "a", "b", 3);
    let ids: Vec<_> = registry.nodes().iter().map(|n| &*n.identity.id).collect();
    assert_eq!(ids, ["2"]);
}

#[test]
fn the_end_of_a_replaced_stream_is_ignored() {
    let mut registry = Registry::default();
    let old = connect(&mut registry, "1", "a", "b", 0);
    let new = connect(&mut registry, "1", "a", "b", 1);
    assert!(!registry.disconnect("1", old, at(2)));
    registry.record_rejected("1", old, None, "late".into());
    let node = registry.by_name(&node_name("a")).expect("known");
    assert!(node.is_connected() && node.rejection.is_none());
    assert!(registry.disconnect("1", new, at(3)));
}

#[test]
fn a_new_boot_clears_the_report() {
    let mut registry = Registry::default();
    connect(&mut registry, "1", "a", "b1", 0);
    let (node, report) = (identity("1", "a"), NodeReport::default());
    registry
        .report(&node, "b1", report, at(0))
        .expect("connected");
    let has_report = |registry: &Registry| {
        let node = registry.by_name(&node_name("a"));
        node.expect("known").report.is_some()
    };
    connect(&mut registry, "1", "a", "b1", 1);
    assert!(has_report(&registry));
    connect(&mut registry, "1", "a", "b2", 1);
    assert!(!has_report(&registry));
}

#[test]
fn a_stale_node_is_forgotten_and_a_connected_one_never() {
    let mut registry = Registry::default();
    let stream = connect(&mut registry, "1", "a", "b", 0);
    assert!(!registry.forget_stale(at(100_000)));
    registry.disconnect("1", stream, at(100_000));
    assert!(!registry.forget_stale(at(100_299)));
    assert!(registry.forget_stale(at(100_300)));
    assert!(registry.nodes().is_empty());
}

#[test]
fn propagation_counts_connected_nodes_of_the_epoch_only() {
    let mut registry = Registry::default();
    let cursor = |epoch: &str, revision| Cursor::new(epoch, revision, [0; 32]);
    let stream = |registry: &mut Registry, name: &str, applied: Option<Cursor>| {
        let stream = connect(registry, name, name, "b", 0);
        if let Some(applied) = applied {
            registry.record_applied(name, stream, applied, Vec::new());
        }
        stream
    };
    stream(&mut registry, "new", None);
    stream(&mut registry, "behind", Some(cursor("e", 6)));
    stream(&mut registry, "there", Some(cursor("e", 7)));
    stream(&mut registry, "ahead", Some(cursor("e", 8)));
    stream(&mut registry, "foreign", Some(cursor("old", 99)));
    let stale = stream(&mut registry, "stale", Some(cursor("e", 6)));
    let rejecting = stream(&mut registry, "rejecting", Some(cursor("e", 6)));
    registry.disconnect("stale", stale, at(1));
    registry.record_rejected("rejecting", rejecting, Some(cursor("e", 6)), "no".into());
    let found = registry.propagation("e", 7);
    assert_eq!(found.applied, 2);
    let pending = ["behind", "foreign", "new", "rejecting"].map(node_name);
    assert_eq!(found.pending, pending);
    assert_eq!(registry.propagation("e", 6).applied, 4);
    assert_eq!(registry.propagation("f", 0).applied, 0, "a new epoch");
    let empty = Registry::default().propagation("e", 7);
    assert_eq!(empty, Propagation::default());
}

#[test]
fn the_replica_a_node_connected_to_last_is_right() {
    let mut registry = Registry::default();
    let here = connect(&mut registry, "1", "a", "b", 10);
    let peer_entry = |connected, connect, seen| {
        let mut node = NodeEntry::new(identity("1", "a"), "b".into(), at(0));
        node.connect_time = Some(at(connect));
        node.rejection = Some("from the peer".into());
        BTreeMap::from([("1".to_owned(), node.into_peer_node(connected, at(seen)))])
    };
    let with_peer = |registry: &mut Registry, connected, connect, seen| {
        registry.set_peer_nodes(peer_entry(connected, connect, seen));
        let node = registry.by_name(&node_name("a")).expect("known");
        (node.rejection.is_some(), node.is_connected())
    };
    let found = with_peer(&mut registry, true, 5, 11);
    assert_eq!(found, (false, true), "connected here later");
    let found = with_peer(&mut registry, true, 20, 20);
    assert_eq!(found, (true, true), "connected to the peer later");
    registry.disconnect("1", here, at(21));
    let found = with_peer(&mut registry, true, 5, 22);
    assert_eq!(found, (true, true), "connected to the peer only");
    let found = with_peer(&mut registry, false, 5, 22);
    assert_eq!(found, (false, false), "stale; last connected here");
}

#[test]
fn a_name_used_by_a_peers_node_is_taken() {
    let mut registry = Registry::default();
    let peer_entry = |connected| {
        let node = NodeEntry::new(identity("1", "a"), "b".into(), at(0));
        BTreeMap::from([("1".to_owned(), node.into_peer_node(connected, at(0)))])
    };
    registry.set_peer_nodes(peer_entry(true));
    let taken = registry.connect(identity("2", "a"), "b".into(), at(1));
    let name = node_name("a");
    assert_eq!(taken, Err(NameTaken { name }));
    registry.set_peer_nodes(peer_entry(false));
    connect(&mut registry, "2", "a", "b", 2);
    let ids: Vec<_> = registry.nodes().iter().map(|n| &*n.identity.id).collect();
    assert_eq!(ids, ["2"], "one node per name");
}

proptest! {
    /// Names are unique, and a connected node is never evicted.
    #[test]
    fn names_stay_unique(
        steps in proptest::collection::vec((0..4u8, 0..4u8, 0..3u8), 1..60),
    ) {
        let mut registry = Registry::default();
        let mut live: BTreeMap<String, (NodeName, StreamId)> = BTreeMap::new();
        for (tick, (id, name, what)) in (0u64..).zip(steps) {
            let (id, name) = (format!("id{id}"), node_name(&format!("n{name}")));
            match what {
                0 => {
                    let taken = live.iter().any(|(i, (n, _))| *i != id && *n == name);
                    let got = registry.connect(NodeIdentity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), at(tick));
                    prop_assert_eq!(got.is_err(), taken);
                    if let Ok(stream) = got {
                        live.insert(id, (name, stream));
                    }
                }
                1 => {
                    let holds = live.get(&id).is_some_and(|(held, _)| *held == name);
                    let node = NodeIdentity { id, name, version: String::new() };
                    let counted = registry.report(&node, "b", NodeReport::default(), at(tick));
                    prop_assert_eq!(counted.is_ok(), holds);
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

/// A report counts only from the id, boot id and name of an open stream, here or at a peer.
#[test]
fn a_report_counts_only_from_the_holder_of_the_stream() {
    let mut registry = Registry::default();
    let report = |registry: &mut Registry, id: &str, name: &str, boot: &str, seconds| {
        let report = NodeReport::default();
        let counted = registry.report(&identity(id, name), boot, report, at(seconds));
        counted.is_ok()
    };
    assert!(!report(&mut registry, "1", "a", "b1", 0), "never connected");
    assert!(
        registry.nodes().is_empty(),
        "a refused report leaves nothing"
    );
    let stream = connect(&mut registry, "1", "a", "b1", 1);
    assert!(report(&mut registry, "1", "a", "b1", 2));
    for (id, name, boot) in [("2", "a", "b1"), ("1", "b", "b1"), ("1", "a", "b2")] {
        assert!(
            !report(&mut registry, id, name, boot, 3),
            "{id} {name} {boot}"
        );
    }
    registry.disconnect("1", stream, at(4));
    assert!(!report(&mut registry, "1", "a", "b1", 5), "disconnected");

    let peer = |connected| {
        let node = NodeEntry::new(identity("3", "c"), "b".into(), at(0));
        BTreeMap::from([("3".to_owned(), node.into_peer_node(connected, at(6)))])
    };
    let reported = |registry: &Registry| {
        let node = registry.by_name(&node_name("c")).expect("known");
        node.report.as_ref().map(|(time, _)| *time)
    };
    registry.set_peer_nodes(peer(true));
    assert!(
        report(&mut registry, "3", "c", "b", 7),
        "a stream to a peer"
    );
    registry.set_peer_nodes(peer(true));
    assert_eq!(
        reported(&registry),
        Some(at(7)),
        "kept over the next reading"
    );
    registry.set_peer_nodes(peer(false));
    assert!(!report(&mut registry, "3", "c", "b", 8), "it left the peer");
}

#[test]
fn a_node_ahead_of_the_database_is_pending_until_it_applies() {
    let mut registry = Registry::default();
    let stream = connect(&mut registry, "1", "a", "b", 0);
    let cursor = |revision| Cursor::new("e", revision, [0; 32]);
    assert!(registry.record_ahead("1", stream, cursor(9)));
    assert!(!registry.record_ahead("1", stream, cursor(9)), "told once");
    registry.disconnect("1", stream, at(1));
    let found = registry.propagation("e", 3);
    assert_eq!(found.pending, [node_name("a")]);
    assert_eq!(found.ahead, [node_name("a")]);
    assert_eq!(registry.propagation("new", 3).ahead, [], "a new epoch");
    let stream = connect(&mut registry, "1", "a", "b", 2);
    registry.record_applied("1", stream, cursor(3), Vec::new());
    assert_eq!(registry.propagation("e", 3).ahead, []);
}
