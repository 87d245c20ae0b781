use super::*;
use crate::domain::Uid;
use crate::feed::Digest;
use crate::feed::frames::Frame;
use crate::feed::stream::History as _;
use crate::feed::table::{EncodedRoute, LogEntry};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Weak};

/// Two routes of this size do not fit into one chunk.
const LARGE: usize = 40 * 1024;

fn route(n: u8, content: u8) -> EncodedRoute {
    let bytes = Bytes::from(vec![content; LARGE]);
    EncodedRoute {
        uid: Uid::from(uuid::Uuid::from_u128(u128::from(n) + 1)),
        sha256: Sha256::digest(&bytes).into(),
        bytes,
    }
}

/// A table of `routes` routes at revision 1.
fn first(routes: u8) -> Table {
    let routes: Vec<_> = (0..routes).map(|n| route(n, 0)).collect();
    let digest = routes
        .iter()
        .fold(Digest::ZERO, |sum, route| sum.plus(&route.sha256));
    Table::new("c".into(), Cursor::new("a", 1, digest), routes).expect("its digest")
}

/// The table after route `n` changes from content `from` to content `to`.
fn changed(table: &Table, n: u8, from: u8, to: u8) -> Table {
    let (old, new) = (route(n, from), route(n, to));
    let head = table.head();
    let digest = head.digest.minus(&old.sha256).plus(&new.sha256);
    let revision = head.revision + 1;
    let entry = LogEntry {
        revision,
        uid: Some(new.uid.clone()),
        digest,
    };
    let to = Cursor::new("a", revision, digest);
    table.next(to, [new], [], [entry]).expect("its digest")
}

fn routes(frames: Frames) -> Vec<Weak<EncodedRoute>> {
    let of = |frame: Arc<Frame>| match &*frame {
        Frame::Chunk { upserts, .. } => upserts.iter().map(Arc::downgrade).collect(),
        Frame::Begin { .. } | Frame::Commit { .. } => Vec::new(),
    };
    frames.flat_map(of).collect()
}

#[test]
fn streams_that_send_the_same_change_share_its_frames() {
    let before = first(3);
    let published = PublishedTable::new(changed(&before, 1, 0, 1));
    let from = before.head();
    for (one, other) in [
        (published.delta(from), published.delta(from)),
        (published.snapshot(), published.snapshot()),
    ] {
        assert!(one.zip(other).all(|(one, other)| Arc::ptr_eq(&one, &other)));
    }
    assert_eq!(published.delta(from).count(), 3, "begin, a chunk, commit");
    assert_eq!(
        published.snapshot().count(),
        5,
        "begin, three chunks, commit"
    );
}

#[test]
fn the_cache_is_bounded_whatever_cursors_nodes_claim() {
    let published = PublishedTable::new(first(1));
    for revision in 0..100 {
        published.delta(&Cursor::new("elsewhere", revision, [0; 32]));
    }
    assert_eq!(published.cached.lock().len(), CACHED_CHANGES_MAX);
}

/// A stream stalls in the middle of a snapshot while all routes change.
#[test]
fn a_stalled_stream_keeps_only_its_unsent_frames() {
    let old = PublishedTable::new(first(3));
    let mut stalled = old.snapshot();
    let all = routes(old.snapshot());
    // Begin, and two of three chunks.
    stalled.nth(2);
    let mut next = old.table.clone();
    for n in 0..3 {
        next = changed(&next, n, 0, 1);
    }
    drop(old);
    let held: Vec<_> = all.iter().map(|route| route.upgrade().is_some()).collect();
    assert_eq!(held, [false, false, true]);
    drop(stalled);
    assert!(all.iter().all(|route| route.upgrade().is_none()));
    assert_eq!(next.head().revision, 4);
}
