//! Join tokens and enrolled nodes.

use cless_proto::token::secret_hash;

use super::*;
use crate::domain::enrollment::{Join, Refusal, TOKEN_LIFETIME};
use crate::store::{NewJoinToken, TokenProof};

const SECRET: [u8; 32] = [7; 32];

async fn token(store: &Store, id: &str, name: Option<&str>) -> TokenProof {
    let hash = secret_hash(&SECRET);
    let new = NewJoinToken {
        id: id.to_owned(),
        hash,
        name: name.map(|name| NodeName::parse(name).unwrap()),
    };
    let created = store.create_join_token(new, at(START)).await.unwrap();
    assert_eq!(created.resource, START.plus(TOKEN_LIFETIME));
    TokenProof {
        id: id.to_owned(),
        hash,
    }
}

fn at(now: Timestamp) -> WriteOptions {
    WriteOptions::system("test", now)
}

fn request(id: &str, name: &str, key: u8, now: Timestamp) -> Join {
    Join {
        id: id.to_owned(),
        name: NodeName::parse(name).unwrap(),
        key: [key; 32],
        node_time: now,
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Enrollment(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn entries(store: &Store) -> usize {
    let all = store.list_audit(&Default::default(), 100, None).await;
    all.unwrap().items.len()
}

#[tokio::test]
async fn a_node_joins_once_per_token_and_the_answer_repeats() {
    let store = memory().await;
    let proof = token(&store, "t", None).await;
    let before = store.credentials(None).await.unwrap().unwrap().revision;
    let wrong = TokenProof {
        hash: [0; 32],
        ..proof.clone()
    };
    let first = request("1", "a", 1, START);
    let refused = store.join(wrong, first.clone(), at(START)).await;
    assert_eq!(refusal(refused), Refusal::TokenUnknown);

    let joined = store.join(proof.clone(), first, at(START)).await.unwrap();
    let known = store.credentials(Some(before)).await.unwrap().unwrap();
    assert_eq!(known.nodes.len(), 1);
    assert_eq!(known.nodes[0].key_hash, [1; 32]);
    // The token's creation and the join.
    assert_eq!(entries(&store).await, 2);

    let soon = later(60);
    let again = store.join(proof.clone(), request("1", "a", 1, soon), at(soon));
    let again = again.await.unwrap().resource;
    assert!(again.expire_time > joined.resource.expire_time);
    assert_eq!(again.enroll_time, START);
    assert_eq!(entries(&store).await, 2, "a repeat is no change");
    let known = store.credentials(Some(known.revision)).await.unwrap();
    assert!(known.is_none(), "a repeat ends no stream");

    let other = store.join(proof.clone(), request("2", "b", 2, soon), at(soon));
    assert_eq!(refusal(other.await), Refusal::TokenSpent);
    let late = START.plus(TOKEN_LIFETIME);
    let late = store.join(proof, request("1", "a", 1, late), at(late));
    assert!(matches!(refusal(late.await), Refusal::TokenExpired(_)));
}

#[tokio::test]
async fn names_and_keys_stay_with_their_id_until_it_is_removed() {
    let store = memory().await;
    let first = token(&store, "t1", Some("a")).await;
    store
        .join(first, request("1", "a", 1, START), at(START))
        .await
        .unwrap();
    let taken = NewJoinToken {
        id: "x".into(),
        hash: [0; 32],
        name: NodeName::parse("a").ok(),
    };
    let refused = store.create_join_token(taken, at(START)).await;
    assert!(matches!(refusal(refused), Refusal::NameTaken(_)));
    let second = token(&store, "t2", None).await;
    for (bad, expected) in [
        (request("2", "a", 2, START), "belongs to another node"),
        (request("1", "a", 2, START), "another key"),
        (request("2", "b", 1, START), "another id"),
        (request("1", "b", 1, START), "enrolled as `a`"),
        (request("2", "b", 2, later(7200)), "differ by more"),
    ] {
        let refused = store.join(second.clone(), bad, at(START)).await;
        let text = refusal(refused).to_string();
        assert!(text.contains(expected), "{text}");
    }

    let name = NodeName::parse("a").unwrap();
    let dry = WriteOptions {
        validate_only: true,
        ..at(START)
    };
    store.remove_node(name.clone(), dry).await.unwrap();
    assert!(store.renew([1; 32], START, START).await.is_ok());
    let removed = store.remove_node(name.clone(), at(START)).await.unwrap();
    assert_eq!(removed.resource.id, "1");
    let again = store.remove_node(name, at(START)).await;
    assert!(matches!(again, Err(Error::NotFound { .. })));
    let refused = store.renew([1; 32], START, START).await;
    assert_eq!(refusal(refused), Refusal::Removed);
    let known = store.credentials(None).await.unwrap().unwrap();
    assert!(known.nodes.is_empty());

    // The name is free; the id comes back with its old key and the name that is left.
    store
        .join(second, request("2", "a", 2, START), at(START))
        .await
        .unwrap();
    let third = token(&store, "t3", None).await;
    let stolen = store.join(third.clone(), request("1", "b", 3, START), at(START));
    assert_eq!(refusal(stolen.await), Refusal::IdTaken);
    store
        .join(third, request("1", "b", 1, START), at(START))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_renewal_extends_and_makes_no_entry() {
    let store = memory().await;
    let proof = token(&store, "t", None).await;
    store
        .join(proof, request("1", "a", 1, START), at(START))
        .await
        .unwrap();
    let before = entries(&store).await;
    let later = later(3600);
    let (renewed, name) = store.renew([1; 32], later, later).await.unwrap();
    assert_eq!((name.as_str(), renewed.id.as_str()), ("a", "1"));
    let (again, _) = store.renew([1; 32], later, later).await.unwrap();
    assert_eq!(again, renewed);
    assert_eq!(entries(&store).await, before);
    let unknown = store.renew([9; 32], later, later).await;
    assert_eq!(refusal(unknown), Refusal::NotEnrolled);
}

#[tokio::test]
async fn of_two_nodes_with_one_token_one_joins() {
    let store = memory().await;
    let proof = token(&store, "t", None).await;
    let (one, other) = tokio::join!(
        store.join(proof.clone(), request("1", "a", 1, START), at(START)),
        store.join(proof.clone(), request("2", "b", 2, START), at(START)),
    );
    let refused = match (one, other) {
        (Ok(_), refused @ Err(_)) | (refused @ Err(_), Ok(_)) => refusal(refused),
        both => panic!("{both:?}"),
    };
    assert_eq!(refused, Refusal::TokenSpent);
}

#[tokio::test]
async fn a_drain_is_recorded() {
    let store = memory().await;
    let node = NodeName::parse("a").unwrap();
    store.record_drain(&node, true, at(START)).await.unwrap();
    let all = store
        .list_audit(&Default::default(), 1, None)
        .await
        .unwrap();
    let entry = &all.items[0];
    assert_eq!(entry.resource, "nodes/a");
    assert_eq!(entry.changes[0].field, "drained");
}
