//! Law: over random histories, a chain of deltas equals the snapshot.

use super::*;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

fn uid(n: u8) -> Uid {
    Uid::from(uuid::Uuid::from_u128(u128::from(n) + 1))
}

fn route(n: u8, content: u8) -> EncodedRoute {
    let bytes = Bytes::from(vec![n, content]);
    let sha256 = Sha256::digest(&bytes).into();
    EncodedRoute {
        uid: uid(n),
        bytes,
        sha256,
    }
}

/// The routes of a node: encoded bytes by uid.
type NodeRoutes = BTreeMap<Uid, Bytes>;

fn digest_of(routes: &NodeRoutes) -> Digest {
    routes.values().fold(Digest::ZERO, |sum, bytes| {
        sum.plus(&Sha256::digest(bytes).into())
    })
}

fn cursor(revision: i64, routes: &NodeRoutes) -> Cursor {
    Cursor::new("a", revision, digest_of(routes))
}

fn apply(routes: &mut NodeRoutes, change: &TableChange) {
    if change.from.is_none() {
        routes.clear();
    }
    for uid in &change.removed {
        routes.remove(uid);
    }
    for route in &change.upserts {
        routes.insert(route.uid.clone(), route.bytes.clone());
    }
}

fn empty() -> Table {
    Table::new("c".into(), cursor(0, &NodeRoutes::new()), []).expect("the empty digest")
}

/// Writes one change of one route, logged as by the store.
fn write(table: &Table, routes: &mut NodeRoutes, n: u8, content: Option<u8>) -> Table {
    let (upsert, removed) = match content {
        Some(content) => (Some(route(n, content)), None),
        None => (None, Some(uid(n))),
    };
    if let Some(new) = &upsert {
        routes.insert(new.uid.clone(), new.bytes.clone());
    } else {
        routes.remove(&uid(n));
    }
    let to = cursor(table.head().revision + 1, routes);
    let entry = LogEntry {
        revision: to.revision,
        uid: Some(uid(n)),
        digest: to.digest,
    };
    table
        .next(to, upsert, removed, [entry])
        .expect("digests agree")
}

#[test]
fn a_digest_that_does_not_match_the_routes_is_rejected() {
    let wrong = Cursor::new("a", 1, [1; 32]);
    let result = Table::new("c".into(), wrong.clone(), [route(1, 1)]);
    assert_eq!(result.map(|_| ()), Err(DigestMismatch { revision: 1 }));
    let result = empty().next(wrong, [route(1, 1)], [], []);
    assert_eq!(result.map(|_| ()), Err(DigestMismatch { revision: 1 }));
}

#[test]
fn history_is_bounded_and_older_cursors_get_no_delta() {
    let mut routes = NodeRoutes::new();
    let mut table = empty();
    let mut cursors = vec![table.head().clone()];
    for n in 0..u8::MAX {
        table = write(&table, &mut routes, n % 7, Some(n));
        cursors.push(table.head().clone());
    }
    let log = table.log.clone();
    let table = table.with_history(
        (100, cursors[100].digest),
        log.into_iter().filter(|entry| entry.revision > 100),
    );
    assert!(table.delta(&cursors[99]).is_none());
    let oldest = table.delta(&cursors[100]).expect("the start is held");
    assert_eq!(oldest.upserts.len(), 7);
    assert!(
        table
            .delta(&cursors[255])
            .expect("the head is held")
            .upserts
            .is_empty()
    );
}

proptest! {
    /// From any point of a history, the delta leads to the same table as the snapshot.
    #[test]
    fn any_delta_equals_the_snapshot(
        writes in proptest::collection::vec((0..6u8, proptest::option::of(0..4u8)), 1..40),
    ) {
        let mut routes = NodeRoutes::new();
        let mut table = empty();
        let mut past = vec![(table.head().clone(), routes.clone())];
        for (n, content) in writes {
            table = write(&table, &mut routes, n, content);
            past.push((table.head().clone(), routes.clone()));
        }
        let mut from_nothing = NodeRoutes::new();
        apply(&mut from_nothing, &table.snapshot());
        prop_assert_eq!(&from_nothing, &routes);
        for (cursor, mut held) in past {
            let change = table.delta(&cursor).expect("the whole history is held");
            apply(&mut held, &change);
            prop_assert_eq!(held.len() as u64, change.count);
            prop_assert_eq!(digest_of(&held), change.to.digest);
            prop_assert_eq!(&held, &routes);
            let mut elsewhere = cursor;
            elsewhere.epoch = "b".into();
            prop_assert!(table.delta(&elsewhere).is_none());
        }
    }
}
