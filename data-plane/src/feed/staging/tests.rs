mod plane;

use super::*;
use crate::feed::testing;
use crate::route::Cursor;
use plane::Plane;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn bytes(uid: &str, salt: u8) -> Bytes {
    testing::bytes(&testing::route(uid, &[&format!("{uid}-{salt}.test")]))
}

fn staging() -> Staging {
    Staging::new(Arc::default(), false, PastEpochs::default())
}

/// The results of the messages, without `Pending`.
fn run(staging: &mut Staging, messages: Vec<Message>) -> Vec<Result<Arc<Table>, ChangeRefusal>> {
    messages
        .into_iter()
        .filter_map(|message| match staging.step(message) {
            Staged::Pending => None,
            Staged::Committed(table) => Some(Ok(table)),
            Staged::Refused(refusal) => Some(Err(refusal)),
        })
        .collect()
}

fn received(table: &Table) -> BTreeMap<String, Bytes> {
    table
        .entries()
        .map(|(uid, entry)| (uid.to_string(), entry.received().clone()))
        .collect()
}

fn sample() -> Plane {
    let mut plane = Plane::default();
    for uid in ["a", "b", "c"] {
        plane.put(uid, bytes(uid, 0));
    }
    plane
}

#[test]
fn a_snapshot_then_a_delta() {
    let (mut staging, first) = (staging(), sample());
    let table = run(&mut staging, first.snapshot(1)).remove(0).unwrap();
    assert_eq!(table.cursor(), &first.cursor());
    assert_eq!(&**table.cluster(), "c");
    assert!(table.lookup("a-0.test").is_some());

    let mut second = first.clone();
    second.routes.remove("b");
    second.put("a", bytes("a", 1));
    let table = run(&mut staging, second.delta(2, &first))
        .remove(0)
        .unwrap();
    assert_eq!(received(&table), second.routes);
    assert!(table.lookup("a-0.test").is_none() && table.lookup("b-0.test").is_none());
    assert!(table.lookup("a-1.test").is_some());
}

#[test]
fn a_bad_route_is_quarantined_and_counts_in_the_digest() {
    let (mut staging, mut plane) = (staging(), sample());
    run(&mut staging, plane.snapshot(1));
    let before = plane.clone();
    plane.put("a", Bytes::from_static(b"\xff\xff"));
    let table = run(&mut staging, plane.delta(2, &before))
        .remove(0)
        .unwrap();
    assert_eq!(table.cursor(), &plane.cursor());
    assert!(table.lookup("a-0.test").is_some());
    assert_eq!(&*table.quarantined()[0].service, "s-a");
}

#[test]
fn another_cluster_is_rejected_once_a_table_was_committed() {
    let other = |txn| {
        let mut messages = sample().snapshot(txn);
        let Message::Begin(begin) = &mut messages[0] else {
            unreachable!()
        };
        begin.cluster = "other".into();
        messages
    };
    let mut staging = staging();
    let table = run(&mut staging, sample().snapshot(1)).remove(0).unwrap();
    assert!(matches!(
        run(&mut staging, other(2))[..],
        [Err(ChangeRefusal::Rejected(_))]
    ));
    // A table from disk alone does not bind the node.
    let mut cached = Staging::new(table, false, PastEpochs::default());
    assert_eq!(
        &**run(&mut cached, other(3)).remove(0).unwrap().cluster(),
        "other"
    );
}

#[test]
fn revisions_never_go_back_within_an_epoch() {
    let (mut staging, plane) = (staging(), sample());
    run(&mut staging, plane.snapshot(1));
    let mut behind = plane.clone();
    behind.revision -= 1;
    assert!(matches!(
        run(&mut staging, behind.snapshot(2))[..],
        [Err(ChangeRefusal::Rejected(_))]
    ));
    assert_eq!(staging.serving().cursor().revision, plane.revision);
    // A restored state has a new epoch and may have a lower revision.
    let mut restored = behind.snapshot(3);
    for message in &mut restored {
        match message {
            Message::Begin(Begin { to, .. }) | Message::Commit(Commit { to, .. }) => {
                to.epoch = "restored".into();
            }
            _ => {}
        }
    }
    assert!(run(&mut staging, restored)[0].is_ok());
}

#[test]
fn a_corrupt_change_is_refused_once_and_the_next_is_taken() {
    let (mut staging, plane) = (staging(), sample());
    let mut messages = plane.snapshot(1);
    messages.remove(1);
    let outcome = run(&mut staging, messages);
    assert!(
        matches!(outcome[..], [Err(ChangeRefusal::Corrupt(_))]),
        "{outcome:?}"
    );
    assert!(staging.serving().is_initial());
    assert!(run(&mut staging, plane.snapshot(2))[0].is_ok());
}

#[test]
fn a_wrong_digest_or_count_is_corrupt() {
    for spoil in [
        |commit: &mut Commit| commit.count += 1,
        |commit: &mut Commit| commit.to.digest = Digest::ZERO,
        |commit: &mut Commit| commit.to.revision += 1,
        |commit: &mut Commit| commit.txn += 1,
    ] {
        let mut messages = sample().snapshot(1);
        let Some(Message::Commit(commit)) = messages.last_mut() else {
            unreachable!()
        };
        spoil(commit);
        assert!(matches!(
            run(&mut staging(), messages)[..],
            [Err(ChangeRefusal::Corrupt(_))]
        ));
    }
    // Begin and Commit agree on a digest that the routes do not have.
    let mut messages = sample().snapshot(1);
    for message in &mut messages {
        match message {
            Message::Begin(Begin { to, .. }) | Message::Commit(Commit { to, .. }) => {
                to.digest = Digest::ZERO;
            }
            _ => {}
        }
    }
    assert!(matches!(
        run(&mut staging(), messages)[..],
        [Err(ChangeRefusal::Corrupt(_))]
    ));
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8, u8),
    Spoil(u8, u8),
    Remove(u8),
}

fn batches() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let edit = prop_oneof![
        6 => (0u8..6, 0u8..4).prop_map(|(uid, salt)| Edit::Put(uid, salt)),
        1 => (0u8..6, any::<u8>()).prop_map(|(uid, salt)| Edit::Spoil(uid, salt)),
        2 => (0u8..6).prop_map(Edit::Remove),
    ];
    proptest::collection::vec(proptest::collection::vec(edit, 0..5), 1..8)
}

fn edit(plane: &mut Plane, edits: &[Edit]) {
    plane.revision += 1;
    for edit in edits {
        match edit {
            Edit::Put(uid, salt) => {
                let uid = format!("u{uid}");
                plane.put(&uid, bytes(&uid, *salt));
            }
            Edit::Spoil(uid, salt) => plane.put(&format!("u{uid}"), vec![0xff, *salt].into()),
            Edit::Remove(uid) => {
                plane.routes.remove(&format!("u{uid}"));
            }
        }
    }
}

proptest! {
    #[test]
    fn a_chain_of_deltas_equals_the_snapshot(batches in batches()) {
        let (mut staging, mut plane) = (staging(), Plane { revision: 1, ..Plane::default() });
        prop_assert!(run(&mut staging, plane.snapshot(0))[0].is_ok());
        for (txn, batch) in (1..).zip(&batches) {
            let before = plane.clone();
            edit(&mut plane, batch);
            let outcome = run(&mut staging, plane.delta(txn, &before));
            prop_assert!(matches!(outcome[..], [Ok(_)]), "{:?}", outcome);
            prop_assert_eq!(staging.serving().cursor(), &plane.cursor());
            prop_assert_eq!(received(staging.serving()), plane.routes.clone());
        }
    }

    /// A change with a dropped, repeated or swapped message is refused.
    #[test]
    fn a_mangled_change_is_refused_whole(
        batches in batches(),
        mangling in 0usize..3,
        at in any::<proptest::sample::Index>(),
        with in any::<proptest::sample::Index>(),
    ) {
        let (mut staging, mut plane) = (staging(), sample());
        run(&mut staging, plane.snapshot(0));
        let before = plane.clone();
        batches.iter().for_each(|batch| edit(&mut plane, batch));
        let whole = plane.delta(1, &before);
        let (at, with) = (at.index(whole.len()), with.index(whole.len()));
        let mut mangled = whole.clone();
        match mangling {
            0 => drop(mangled.remove(at)),
            1 => mangled.insert(with, whole[at].clone()),
            _ => mangled.swap(at, with),
        }
        for outcome in run(&mut staging, mangled.clone()) {
            match outcome {
                Ok(table) => prop_assert_eq!(received(&table), plane.routes.clone()),
                Err(refusal) => prop_assert!(matches!(refusal, ChangeRefusal::Corrupt(_))),
            }
        }
        let served = received(staging.serving());
        prop_assert!(served == plane.routes || served == before.routes);
        // Unless the repeated message precedes or follows a change that is still complete.
        if !mangled.windows(whole.len()).any(|window| window == whole) {
            prop_assert_eq!(served, before.routes);
        }
        // The refused change does not affect the next one.
        plane.revision += 1;
        let rest = plane.snapshot(9);
        if staging.is_open() {
            run(&mut staging, rest.clone());
        }
        prop_assert!(matches!(run(&mut staging, rest)[..], [Ok(_)]));
    }

    #[test]
    fn random_messages_never_panic(
        messages in proptest::collection::vec(message(), 0..12),
        with_table: bool,
    ) {
        let mut staging = staging();
        if with_table {
            run(&mut staging, sample().snapshot(1));
        }
        run(&mut staging, messages);
    }
}

fn message() -> impl Strategy<Value = Message> {
    let cursor = || {
        ("[ef]?", -2i64..4, any::<bool>()).prop_map(|(epoch, revision, zero)| Cursor {
            epoch,
            revision,
            digest: if zero {
                Digest::ZERO
            } else {
                sample().cursor().digest
            },
        })
    };
    let scope = prop_oneof![Just(Scope::Snapshot), Just(Scope::Delta)];
    let begin = (
        0u64..2,
        "c?",
        scope,
        proptest::option::of(cursor()),
        cursor(),
    )
        .prop_map(|(txn, cluster, scope, from, to)| {
            Message::Begin(Begin {
                txn,
                cluster,
                scope,
                from,
                to,
            })
        });
    let bytes = any::<Vec<u8>>().prop_map(Bytes::from);
    let upserts = proptest::collection::vec(("[ab]?", bytes), 0..3);
    let removed = proptest::collection::vec("[ab]?", 0..2);
    let chunk = (0u64..2, 0u32..3, upserts, removed).prop_map(|(txn, part, upserts, removed)| {
        Message::Chunk(Chunk {
            txn,
            part,
            upserts,
            removed,
        })
    });
    let commit = (0u64..2, cursor(), 0u64..4)
        .prop_map(|(txn, to, count)| Message::Commit(Commit { txn, to, count }));
    let malformed = any::<bool>().prop_map(|is_commit| Message::Malformed {
        is_commit,
        reason: "malformed",
    });
    prop_oneof![begin, chunk, commit, malformed, Just(Message::Unknown)]
}

fn empty_at(epoch: &str, revision: i64) -> Vec<Message> {
    let plane = Plane {
        revision,
        ..Plane::default()
    };
    let mut messages = plane.snapshot(1);
    for message in &mut messages {
        match message {
            Message::Begin(Begin { to, .. }) | Message::Commit(Commit { to, .. }) => {
                to.epoch = epoch.into();
            }
            _ => {}
        }
    }
    messages
}

/// Found by the simulation, seed 4: a replica that could not read the database after a restore
/// returned its node to the previous epoch.
#[test]
fn revisions_do_not_go_back_in_an_epoch_that_was_left() {
    let mut staging = Staging::new(Arc::default(), false, PastEpochs::default());
    assert!(run(&mut staging, empty_at("before", 21))[0].is_ok());
    assert!(run(&mut staging, empty_at("restored", 22))[0].is_ok());
    let refused = run(&mut staging, empty_at("before", 14));
    assert!(
        matches!(&refused[..], [Err(ChangeRefusal::Rejected(_))]),
        "{refused:?}"
    );
    // The backup is discarded for the original, which continues where it was.
    assert!(run(&mut staging, empty_at("before", 21))[0].is_ok());
    assert!(run(&mut staging, empty_at("before", 22))[0].is_ok());
}
