//! Certificates of nodes over real sockets: each way in, and each refusal.
//!
//! The passing of time is written into the database.

mod drain;
mod planes;

use crate::harness::{Harness, assert_refused, eventually, fields, report};
use crate::secure::{Identity, Node, NodeKey, SecurePlane, identity};
use cless_proto::v1 as pb;
use pb::enrollment_service_client::EnrollmentServiceClient;
use std::time::{Duration, Instant, SystemTime};
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const DAY: i64 = 24 * 3600 * 1_000_000;

fn time(offset: i64) -> Option<prost_types::Timestamp> {
    let mut time = prost_types::Timestamp::from(SystemTime::now());
    time.seconds += offset;
    Some(time)
}

async fn enroll(
    plane: &SecurePlane,
    request: pb::EnrollNodeRequest,
) -> Result<pb::NodeCertificate, Status> {
    let issued = plane.enroller().await.enroll_node(request).await?;
    Ok(issued.into_inner())
}

async fn renew(plane: &SecurePlane, key: &NodeKey) -> Result<pb::NodeCertificate, Status> {
    let issued = plane
        .enroller()
        .await
        .renew_certificate(key.renew())
        .await?;
    Ok(issued.into_inner())
}

/// The certificate of a node that has joined belongs to its name and id alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_only_its_key_is_taken_from_its_request() {
    let plane = SecurePlane::start().await;
    let key = NodeKey::new();
    let token = plane.join_token("n1").await;
    let extra = ["plane.cless.internal", "n2"];
    let request = pb::EnrollNodeRequest {
        csr: key.csr(&extra).into(),
        ..key.enroll(&token, "n1")
    };
    let issued = enroll(&plane, request).await.expect("it joins");
    assert_eq!(Some(&*issued.cluster), plane.running.cluster());
    assert_eq!(issued.authorities.len(), 1);
    let (_, read) = X509Certificate::from_der(&issued.certificate).expect("X.509");
    let names = read.subject_alternative_name().expect("valid");
    let uri = format!("cless://{}/nodes/id-of-n1", issued.cluster);
    let expected = [GeneralName::URI(&uri)];
    assert_eq!(names.expect("names").value.general_names, expected);
    let common: Vec<_> = read.subject().iter_common_name().collect();
    assert_eq!(common[0].as_str(), Ok("n1"));
    let usage = read.extended_key_usage().expect("valid").expect("a usage");
    assert!(usage.value.client_auth && !usage.value.server_auth && !usage.value.any);

    let node = key.with(issued);
    let mut streams = Node::connect(&plane, &node, "n1").await;
    streams.report(report("n1")).await.expect("it is this node");
    let get = pb::GetNodeRequest {
        name: "nodes/n1".into(),
    };
    let shown = plane.admin().await.get_node(get).await;
    let shown = shown.expect("a node").into_inner();
    let expires = shown.certificate_expire_time.expect("it has a certificate");
    let left = expires.seconds - time(0).expect("now").seconds;
    assert!((86_300..=86_400).contains(&left), "{left} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_repeated_and_a_spent_token_is_worth_nothing() {
    let plane = SecurePlane::start().await;
    let key = NodeKey::new();
    let token = plane.join_token("").await;
    let first = key.enroll(&token, "n1");
    enroll(&plane, first.clone()).await.expect("it joins");
    let again = enroll(&plane, first).await.expect("the answer was lost");
    let other = NodeKey::new();
    let spent = enroll(&plane, other.enroll(&token, "n2")).await;
    assert_refused(spent, Code::Unauthenticated, "JOIN_TOKEN_SPENT");
    let stolen = enroll(&plane, other.enroll(&token, "n1")).await;
    assert_refused(stolen, Code::Unauthenticated, "JOIN_TOKEN_SPENT");
    Node::connect(&plane, &key.with(again), "n1").await;

    let token = plane.join_token("n3").await;
    let key = NodeKey::new();
    let wrong = enroll(&plane, key.enroll(&token, "n4")).await;
    assert_refused(wrong, Code::PermissionDenied, "JOIN_TOKEN_FOR_OTHER_NAME");
    plane
        .sql("UPDATE join_tokens SET expire_time = expire_time - 960000000")
        .await;
    let late = enroll(&plane, key.enroll(&token, "n3")).await;
    let late = assert_refused(late, Code::Unauthenticated, "JOIN_TOKEN_EXPIRED");
    assert!(late.message().contains("node token create"), "{late}");
    let unknown = token.replacen("clessjoin_", "clessjoin_0", 1);
    let unknown = unknown.replacen(&unknown[20..22], "", 1);
    let unknown = enroll(&plane, key.enroll(&unknown, "n3")).await;
    assert!(unknown.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_ids_are_not_taken_over() {
    let plane = SecurePlane::start().await;
    let first = plane.join("n1").await;
    let key = NodeKey::new();
    let token = plane.join_token("").await;
    let name = enroll(&plane, key.enroll(&token, "n1")).await;
    assert_refused(name, Code::AlreadyExists, "NODE_ID_TAKEN");
    let name = pb::EnrollNodeRequest {
        node_id: "another".into(),
        ..key.enroll(&token, "n1")
    };
    let name = enroll(&plane, name).await;
    assert_refused(name, Code::AlreadyExists, "NODE_NAME_TAKEN");
    let id = pb::EnrollNodeRequest {
        node_name: "n2".into(),
        ..key.enroll(&token, "n1")
    };
    let id = enroll(&plane, id).await;
    assert_refused(id, Code::AlreadyExists, "NODE_ID_TAKEN");
    let copied = pb::EnrollNodeRequest {
        csr: first.key.csr(&[]).into(),
        ..key.enroll(&token, "n2")
    };
    let copied = enroll(&plane, copied).await;
    assert_refused(copied, Code::AlreadyExists, "NODE_KEY_TAKEN");
    let request = pb::CreateJoinTokenRequest {
        node_id: "n1".into(),
        validate_only: false,
    };
    let named = plane.admin().await.create_join_token(request).await;
    assert_refused(named, Code::AlreadyExists, "NODE_NAME_TAKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_of_itself_alone() {
    let plane = SecurePlane::start().await;
    let (one, _two) = (plane.join("n1").await, plane.join("n2").await);
    for claimed in [
        identity("n2"),
        pb::NodeIdentity {
            name: "n2".into(),
            ..identity("n1")
        },
        pb::NodeIdentity {
            id: "id-of-n2".into(),
            ..identity("n1")
        },
    ] {
        let channel = plane.channel(Some(&one)).await;
        let mut forged = Node::open(channel.clone(), claimed.clone())
            .await
            .expect("a stream");
        let end: Result<(), _> = Err(forged.end().await);
        assert_refused(end, Code::PermissionDenied, "OTHER_NODE");
        let mut control = Node::control(channel, claimed).await;
        let end = control.message().await;
        assert_refused(end, Code::PermissionDenied, "OTHER_NODE");
    }
    let mut streams = Node::connect(&plane, &one, "n1").await;
    let forged = streams.report(report("n2")).await;
    assert_refused(forged, Code::PermissionDenied, "OTHER_NODE");
    // A certificate gives no rights of an administrator, and its absence none of a node.
    let mut nodes =
        pb::node_service_client::NodeServiceClient::new(plane.channel(Some(&one)).await);
    let list = nodes.list_nodes(pb::ListNodesRequest::default()).await;
    assert_refused(list, Code::PermissionDenied, "ROLE_MISSING");
    let nobody = Node::open(plane.channel(None).await, identity("n1")).await;
    assert_refused(
        nobody.map(|_| ()),
        Code::Unauthenticated,
        "CREDENTIAL_MISSING",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_cluster_is_refused_in_words() {
    let plane = SecurePlane::start().await;
    let other = SecurePlane::start().await;
    plane.join("n1").await;
    let stranger = other.join("n1").await;
    let refused = Node::open(plane.channel(Some(&stranger)).await, identity("n1")).await;
    let status = refused.map(|_| ()).expect_err("another authority");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("authority"), "{status}");
    let unknown = renew(&plane, &stranger.key).await;
    assert_refused(unknown, Code::Unauthenticated, "NODE_NOT_ENROLLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_renews_for_90_days() {
    let plane = SecurePlane::start().await;
    let node = plane.join("n1").await;
    for (days, renews) in [(2, true), (3, true), (89, true), (93, false)] {
        let expired = format!(
            "UPDATE enrolled_nodes SET expire_time = expire_time - {}",
            days * DAY
        );
        plane.sql(&expired).await;
        let renewed = renew(&plane, &node.key).await;
        if renews {
            let renewed = renewed.expect("within 90 days");
            let identity = Identity {
                certificate: renewed.certificate.to_vec(),
                key: NodeKey(copy(&node.key)),
            };
            Node::connect(&plane, &identity, "n1").await;
        } else {
            assert_refused(renewed, Code::Unauthenticated, "CERTIFICATE_TOO_OLD");
        }
    }
}

fn copy(key: &NodeKey) -> rcgen::KeyPair {
    let der = key.0.serialize_der();
    rcgen::KeyPair::try_from(der).expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_shown() {
    let plane = SecurePlane::start().await;
    let key = NodeKey::new();
    let token = plane.join_token("").await;
    for offset in [-7200, 7200] {
        let skewed = pb::EnrollNodeRequest {
            node_time: time(offset),
            ..key.enroll(&token, "n1")
        };
        let refused = enroll(&plane, skewed).await;
        let status = assert_refused(refused, Code::FailedPrecondition, "CLOCK_SKEW");
        let times = status.message().matches('Z').count();
        assert_eq!(times, 2, "{status}");
    }
    let slow = pb::EnrollNodeRequest {
        node_time: time(-3000),
        ..key.enroll(&token, "n1")
    };
    let issued = enroll(&plane, slow).await.expect("less than an hour");
    let node = key.with(issued);
    let skewed = pb::RenewCertificateRequest {
        node_time: time(7200),
        ..node.key.renew()
    };
    let refused = plane.enroller().await.renew_certificate(skewed).await;
    assert_refused(refused, Code::FailedPrecondition, "CLOCK_SKEW");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_out_at_once_and_its_name_is_free() {
    let plane = SecurePlane::start().await;
    let node = plane.join("n1").await;
    let mut streams = Node::connect(&plane, &node, "n1").await;
    let mut admin = plane.admin().await;
    let dry = pb::RemoveNodeRequest {
        name: "nodes/n1".into(),
        validate_only: true,
    };
    admin.remove_node(dry.clone()).await.expect("it could");
    streams.report(report("n1")).await.expect("it is still in");
    let began = Instant::now();
    let remove = pb::RemoveNodeRequest {
        validate_only: false,
        ..dry
    };
    admin.remove_node(remove.clone()).await.expect("removed");
    let end: Result<(), _> = Err(streams.end().await);
    assert_refused(end, Code::Unauthenticated, "CREDENTIAL_ENDED");
    assert!(began.elapsed() < Duration::from_secs(2));
    let again = admin.remove_node(remove).await;
    assert_eq!(again.expect_err("it is gone").code(), Code::NotFound);
    let out = Node::open(plane.channel(Some(&node)).await, identity("n1")).await;
    assert_refused(out.map(|_| ()), Code::Unauthenticated, "NODE_NOT_ENROLLED");
    let renewed = renew(&plane, &node.key).await;
    assert_refused(renewed, Code::Unauthenticated, "NODE_REMOVED");
    let listed = admin.list_nodes(pb::ListNodesRequest::default()).await;
    assert!(listed.expect("a list").into_inner().nodes.is_empty());
    // Another node takes the name; the removed one comes back with its key, under another.
    let key = NodeKey::new();
    let heir = pb::EnrollNodeRequest {
        node_id: "heir".into(),
        ..key.enroll(&plane.join_token("n1").await, "n1")
    };
    enroll(&plane, heir).await.expect("the name is free");
    let back = pb::EnrollNodeRequest {
        node_name: "n2".into(),
        ..node.key.enroll(&plane.join_token("").await, "n1")
    };
    enroll(&plane, back).await.expect("its old key");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_name_their_fields_and_change_nothing() {
    let plane = SecurePlane::start().await;
    let key = NodeKey::new();
    let token = plane.join_token("").await;
    let good = key.enroll(&token, "n1");
    let api_token = format!("cless_{}", &token["clessjoin_".len()..]);
    let cases: Vec<(pb::EnrollNodeRequest, &[&str])> = vec![
        (
            pb::EnrollNodeRequest::default(),
            &["join_token", "node_id", "node_name", "csr", "node_time"],
        ),
        (
            pb::EnrollNodeRequest {
                join_token: api_token,
                ..good.clone()
            },
            &["join_token"],
        ),
        (
            pb::EnrollNodeRequest {
                node_id: "two words".into(),
                node_name: "UPPER".into(),
                ..good.clone()
            },
            &["node_id", "node_name"],
        ),
        (
            pb::EnrollNodeRequest {
                csr: vec![0x30; 5000].into(),
                ..good.clone()
            },
            &["csr"],
        ),
        (
            pb::EnrollNodeRequest {
                csr: good.csr.slice(..good.csr.len() - 3),
                ..good.clone()
            },
            &["csr"],
        ),
    ];
    for (request, expected) in cases {
        let refused = enroll(&plane, request).await;
        let status = assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), expected, "{status}");
        assert!(!status.message().contains(&token[22..60]), "{status}");
    }
    let huge = pb::EnrollNodeRequest {
        csr: vec![0; 20_000].into(),
        ..good.clone()
    };
    assert!(enroll(&plane, huge).await.is_err());
    enroll(&plane, good).await.expect("the token is not spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_limited_and_enrolled_nodes_are_not() {
    let plane = SecurePlane::start().await;
    let node = plane.join("n1").await;
    let key = NodeKey::new();
    let mut enroller = plane.enroller().await;
    let guess = cless_proto::join_token::JoinToken::new([9; 8], [9; 32], [9; 32]).expose();
    let mut codes = Vec::new();
    for _ in 0..30 {
        let refused = enroller.enroll_node(key.enroll(&guess, "n2")).await;
        codes.push(refused.expect_err("a guess").code());
    }
    assert_eq!(codes[0], Code::Unauthenticated);
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted), "{codes:?}");
    let unknown = enroller.renew_certificate(key.renew()).await;
    assert_refused(unknown, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    renew(&plane, &node.key).await.expect("it is enrolled");
}

/// With `--insecure` there is no authority, and no node needs a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn without_tls_nobody_is_certified() {
    let harness = Harness::start().await;
    let key = NodeKey::new();
    let token = cless_proto::join_token::JoinToken::new([9; 8], [9; 32], [9; 32]).expose();
    let mut enroller = EnrollmentServiceClient::new(harness.channel.clone());
    let refused = enroller.enroll_node(key.enroll(&token, "n1")).await;
    assert_refused(refused, Code::FailedPrecondition, "NO_AUTHORITY");
    let refused = harness.call(pb::CreateJoinTokenRequest::default()).await;
    assert_refused(refused, Code::FailedPrecondition, "NO_AUTHORITY");
}

/// A change of credentials on a connection's own plane is in force with its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_joined_may_connect_at_once() {
    let plane = SecurePlane::start().await;
    for at in 0..5 {
        let name = format!("n{at}");
        let node = plane.join(&name).await;
        Node::connect(&plane, &node, &name).await;
    }
    eventually("all are gone", || async {
        let mut admin = plane.admin().await;
        let nodes = admin.list_nodes(pb::ListNodesRequest::default()).await;
        let nodes = nodes.expect("a list").into_inner().nodes;
        nodes
            .iter()
            .all(|node| node.state() == pb::node::State::Stale)
    })
    .await;
}
