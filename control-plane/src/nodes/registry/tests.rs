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
    let report = registry.report(identity("2", "a"), "b".into(), NodeReport::default(), at(1));
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
    let (node, report) = (identity("1", "a"), NodeReport::default());
    let reported = registry.report(node, "b1".into(), report, at(0));
    reported.expect("free");
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
                    let renamed = registry.report(
                        NodeIdentity { id: id.clone(), name: name.clone(), version: String::new() }, "b".into(), NodeReport::default(), at(tick));
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
