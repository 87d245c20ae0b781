//! Image digests reported by nodes, and the list of retained images.

use crate::feed_client::FeedClient;
use crate::harness::{Harness, eventually, report};
use cless_proto::v1 as pb;
use std::collections::BTreeSet;

const VERSION: &str = "services/hello/versions/1";

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn resolved(node: &str, version: &pb::Version, digest: String) -> pb::ReportNodeStatusRequest {
    pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            service_uid: uuid::Uuid::from_u128(7).to_string(),
            number: version.number,
            version_uid: version.uid.clone(),
            image_digest: digest,
            last_cold_start: Some(pb::ColdStart::default()),
            ..Default::default()
        }],
        ..report(node)
    }
}

/// All pages of the list of retained images.
async fn retained(harness: &Harness, page_size: i32) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListRetainedImagesRequest {
            page_size,
            page_token,
        };
        let answer = harness.ok(request).await;
        assert!(!answer.cluster.is_empty());
        let images = answer.images.into_iter();
        all.extend(images.map(|one| (one.image, one.image_digest)));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// Two nodes resolve a moving tag to different digests and report them concurrently.
#[tokio::test]
async fn of_two_concurrent_digests_one_is_kept() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "r.example/hello:1").await;
    harness.split("hello", &[(1, 100)]).await;
    let mut clients = Vec::new();
    for name in ["n1", "n2"] {
        let mut client = FeedClient::connect(&harness, name, None).await;
        client.change().await;
        client.ack().await;
        clients.push(client);
    }
    tokio::join!(
        harness.ok(resolved("n1", &made, digest('a'))),
        harness.ok(resolved("n2", &made, digest('b'))),
    );
    eventually("a digest is stored", || async {
        !harness.get_version(VERSION).await.image_digest.is_empty()
    })
    .await;
    let stored = harness.get_version(VERSION).await.image_digest;
    assert!([digest('a'), digest('b')].contains(&stored), "{stored}");
    let head = harness.head().await;
    for client in &mut clients {
        client.reach(head).await;
        let route = client.route("hello").expect("a route");
        assert_eq!(route.versions[0].image_digest, stored, "both nodes get it");
    }
    // Later reports change nothing.
    for (node, reported) in [("n2", 'b'), ("n1", 'a'), ("n2", 'c')] {
        harness.ok(resolved(node, &made, digest(reported))).await;
    }
    let traffic = harness.split("hello", &[(1, 100)]).await;
    assert_eq!(harness.get_version(VERSION).await.image_digest, stored);
    assert!(traffic.feed_revision > 0);
}

#[tokio::test]
async fn images_of_all_versions_are_retained() {
    let harness = Harness::start().await;
    for service in ["hello", "other"] {
        harness.service(service).await;
        for number in 1..=3 {
            let image = format!("{service}:{number}");
            harness.version(service, &image).await;
        }
    }
    harness.split("hello", &[(2, 100)]).await;
    let expected: BTreeSet<_> = ["hello", "other"]
        .iter()
        .flat_map(|service| {
            (1..=3).map(move |number| (format!("{service}:{number}"), String::new()))
        })
        .collect();
    for page_size in [0, 1, 4, 1000] {
        let found = retained(&harness, page_size).await;
        assert_eq!(found.len(), 6, "each version once");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    let request = pb::DeleteVersionRequest {
        name: "services/hello/versions/1".into(),
        ..Default::default()
    };
    harness.ok(request).await;
    harness.delete("other").await;
    let left = retained(&harness, 0).await.into_iter();
    let left: Vec<_> = left.map(|(image, _)| image).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.contains(&"hello:1".to_owned()), "{left:?}");
}
