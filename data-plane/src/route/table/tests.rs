use super::*;
use crate::route::testing::route;
use proptest::prelude::*;
use std::collections::BTreeMap;

const UIDS: [&str; 5] = ["u0", "u1", "u2", "u3", "u4"];

/// A route of `uid` with these hosts; equal arguments yield equal bytes.
fn candidate(uid: &str, hosts: &[&str]) -> Candidate {
    let received = Bytes::from(format!("{uid} {hosts:?}"));
    Candidate {
        service_uid: uid.into(),
        digest: Digest::of(&received),
        received,
        decoded: Ok(Arc::new(route(&format!("s-{uid}"), uid, hosts))),
        last_good: None,
    }
}

fn bad(uid: &str, salt: u8) -> Candidate {
    let received = Bytes::from(format!("{uid} bad {salt}"));
    Candidate {
        service_uid: uid.into(),
        digest: Digest::of(&received),
        received,
        decoded: Err("slots: there must be 100".into()),
        last_good: None,
    }
}

fn change(scope: Scope, revision: i64, upserts: Vec<Candidate>, removed: &[&str]) -> Change {
    Change {
        cluster: "c".into(),
        cursor: Cursor {
            epoch: "e".into(),
            revision,
            digest: Digest::ZERO,
        },
        scope,
        upserts,
        removed: removed.iter().map(|&uid| uid.into()).collect(),
    }
}

fn delta(upserts: Vec<Candidate>, removed: &[&str]) -> Change {
    change(Scope::Delta, 1, upserts, removed)
}

fn leads(table: &Table, host: &str) -> Option<String> {
    table
        .lookup(host)
        .map(|entry| entry.route.service_uid.to_string())
}

/// All that requests and digests depend on.
fn visible(table: &Table) -> (BTreeMap<String, String>, BTreeMap<String, Digest>, usize) {
    (
        table
            .hosts
            .iter()
            .map(|(host, entry)| (host.to_string(), entry.route.service_uid.to_string()))
            .collect(),
        table
            .entries()
            .map(|(uid, entry)| (uid.to_string(), entry.digest()))
            .collect(),
        table.quarantined().len(),
    )
}

fn check_laws(table: &Table) {
    for (host, entry) in &table.hosts {
        let serving = table
            .route(&entry.route.service_uid)
            .expect("a host leads to what serves");
        assert!(Arc::ptr_eq(serving, &entry.route));
        assert!(serving.all_hosts().any(|(own, _)| own == host));
    }
    for (uid, entry) in table.entries() {
        let route = entry.serving();
        assert!(
            entry.is_good()
                || table
                    .quarantined()
                    .iter()
                    .any(|held| held.service_uid == *uid)
        );
        for (host, _) in route.iter().flat_map(|route| route.all_hosts()) {
            let owner = leads(table, host).expect("a host that serves is free or taken");
            assert!(owner == **uid || !entry.is_good());
        }
    }
    let held = table
        .entries()
        .filter(|(_, entry)| !entry.is_good())
        .count();
    assert_eq!(table.quarantined().len(), held);
}

#[test]
fn a_bad_route_keeps_its_last_good_value() {
    let first = Table::default().apply(delta(vec![candidate("u0", &["a.test"])], &[]));
    let second = first.apply(delta(vec![bad("u0", 0), bad("u1", 0)], &[]));
    check_laws(&second);
    assert_eq!(leads(&second, "a.test").as_deref(), Some("u0"));
    assert_eq!(second.len(), 2);
    assert_eq!(second.routes().count(), 1);
    let held: Vec<_> = second
        .quarantined()
        .iter()
        .map(|held| &*held.service)
        .collect();
    assert_eq!(held, ["s-u0", ""]);
    assert_eq!(&*second.quarantined()[0].reason, "slots: there must be 100");

    // After a snapshot that repeats the bad bytes, the last good value still serves.
    let third = second.apply(change(Scope::Snapshot, 2, vec![bad("u0", 0)], &[]));
    assert_eq!(leads(&third, "a.test").as_deref(), Some("u0"));
    let fourth = third.apply(delta(vec![candidate("u0", &["b.test"])], &[]));
    assert_eq!(
        (
            leads(&fourth, "a.test"),
            leads(&fourth, "b.test").as_deref()
        ),
        (None, Some("u0"))
    );
    assert!(fourth.quarantined().is_empty());
}

#[test]
fn a_newcomer_cannot_take_a_host() {
    let first = Table::default().apply(delta(vec![candidate("u1", &["a.test"])], &[]));
    let second = first.apply(delta(
        vec![
            candidate("u0", &["a.test"]),
            candidate("u1", &["a.test", "b.test"]),
        ],
        &[],
    ));
    check_laws(&second);
    assert_eq!(leads(&second, "a.test").as_deref(), Some("u1"));
    assert_eq!(
        &*second.quarantined()[0].reason,
        "host `a.test` already leads to service `s-u1`"
    );
    // When the owner is removed, the waiting route takes the host.
    let third = second.apply(delta(vec![], &["u1"]));
    check_laws(&third);
    assert_eq!(leads(&third, "a.test").as_deref(), Some("u0"));
    assert!(third.quarantined().is_empty());
}

#[test]
fn a_host_moves_from_one_service_to_another_in_one_change() {
    let first = Table::default().apply(delta(
        vec![candidate("u0", &["a.test"]), candidate("u1", &["b.test"])],
        &[],
    ));
    let second = first.apply(delta(
        vec![candidate("u0", &["b.test"]), candidate("u1", &["a.test"])],
        &[],
    ));
    check_laws(&second);
    assert_eq!(leads(&second, "a.test").as_deref(), Some("u1"));
    assert_eq!(leads(&second, "b.test").as_deref(), Some("u0"));
}

#[test]
fn equal_routes_are_shared() {
    let routes = || vec![candidate("u0", &["a.test"]), candidate("u1", &["b.test"])];
    let first = Table::default().apply(change(Scope::Snapshot, 1, routes(), &[]));
    let second = first.apply(change(Scope::Snapshot, 2, routes(), &[]));
    assert!(Arc::ptr_eq(&first.entries["u0"], &second.entries["u0"]));
    assert_eq!(second.cursor().revision, 2);
}

#[derive(Clone, Debug)]
enum Edit {
    Put(usize, Vec<usize>),
    Break(usize, u8),
    Remove(usize),
}

/// Edits over five services; `shared` services compete for four hosts.
fn edits(shared: bool) -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let hosts = proptest::collection::vec(0usize..4, 0..3);
    let put = (0..UIDS.len(), hosts).prop_map(|(uid, hosts)| Edit::Put(uid, hosts));
    let remove = (0..UIDS.len()).prop_map(Edit::Remove);
    let edit = if shared {
        let spoil = (0..UIDS.len(), any::<u8>()).prop_map(|(uid, salt)| Edit::Break(uid, salt));
        prop_oneof![6 => put, 2 => remove, 2 => spoil].boxed()
    } else {
        prop_oneof![6 => put, 2 => remove].boxed()
    };
    proptest::collection::vec(proptest::collection::vec(edit, 0..4), 1..8)
}

/// The change of these edits (the last edit per service wins); `whole` becomes the result.
fn as_delta(edits: &[Edit], shared: bool, whole: &mut BTreeMap<usize, Candidate>) -> Change {
    let mut last = BTreeMap::new();
    for edit in edits {
        let (Edit::Put(uid, _) | Edit::Break(uid, _) | Edit::Remove(uid)) = edit;
        last.insert(*uid, edit);
    }
    let mut delta = delta(vec![], &[]);
    for (uid, edit) in last {
        let candidate = match edit {
            Edit::Put(_, hosts) => {
                let name = |host: &usize| {
                    if shared {
                        format!("h{host}.test")
                    } else {
                        format!("h{host}-{uid}.test")
                    }
                };
                let hosts: std::collections::BTreeSet<String> = hosts.iter().map(name).collect();
                candidate(
                    UIDS[uid],
                    &hosts.iter().map(String::as_str).collect::<Vec<_>>(),
                )
            }
            Edit::Break(_, salt) => bad(UIDS[uid], *salt),
            Edit::Remove(_) => {
                whole.remove(&uid);
                delta.removed.push(UIDS[uid].into());
                continue;
            }
        };
        whole.insert(uid, candidate.clone());
        delta.upserts.push(candidate);
    }
    delta
}

proptest! {
    #[test]
    fn a_chain_of_deltas_equals_the_snapshot(batches in edits(false)) {
        let (mut table, mut whole) = (Table::default(), BTreeMap::new());
        for batch in &batches {
            table = table.apply(as_delta(batch, false, &mut whole));
            let all = whole.values().cloned().collect();
            let fresh = Table::default().apply(change(Scope::Snapshot, 1, all, &[]));
            check_laws(&table);
            prop_assert_eq!(visible(&table), visible(&fresh));
        }
    }

    #[test]
    fn laws_hold_under_conflict_and_damage(batches in edits(true)) {
        let (mut table, mut whole) = (Table::default(), BTreeMap::new());
        for batch in &batches {
            table = table.apply(as_delta(batch, true, &mut whole));
            check_laws(&table);
            let received: BTreeMap<_, _> = whole
                .values()
                .map(|candidate| (candidate.service_uid.to_string(), candidate.digest))
                .collect();
            prop_assert_eq!(visible(&table).1, received);
            let all = whole.values().cloned().collect();
            check_laws(&table.apply(change(Scope::Snapshot, 1, all, &[])));
        }
    }
}
