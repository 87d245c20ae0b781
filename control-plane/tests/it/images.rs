//! What the control plane keeps of images: which digest counts, and which images versions need.

use crate::harness::{Harness, eventually, identity};
use crate::proxy::Proxy;
use cless_proto::v1 as pb;
use std::collections::BTreeSet;

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn resolved(node: &str, version: &pb::Version, digest: String) -> pb::ReportNodeStatusRequest {
    pb::ReportNodeStatusRequest {
        node: Some(identity(node)),
        boot_id: "boot-1".into(),
        versions: vec![pb::VersionReport {
            service_uid: uuid::Uuid::from_u128(7).to_string(),
            number: version.number,
            version_uid: version.uid.clone(),
            image_digest: digest,
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn known_digest(harness: &Harness) -> String {
    let name = "services/hello/versions/1".into();
    let mut catalog = harness.catalog();
    let version = catalog.get_version(pb::GetVersionRequest { name }).await;
    version.expect("a version").into_inner().image_digest
}

/// All pages, `page_size` a page.
async fn retained(harness: &Harness, page_size: i32) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListRetainedImagesRequest {
            page_size,
            page_token,
        };
        let answer = harness.feed().list_retained_images(request).await;
        let answer = answer.expect("a page").into_inner();
        assert!(!answer.cluster.is_empty());
        all.extend(
            answer
                .images
                .into_iter()
                .map(|one| (one.image, one.image_digest)),
        );
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// Two nodes resolve a tag that moves, each to something else, and say so at the same moment.
#[tokio::test]
async fn of_two_digests_reported_at_once_one_counts_for_good() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let made = harness.version("hello", "r.example/hello:1").await;
    harness.split("hello", &[(1, 100)]).await;
    let mut proxies = Vec::new();
    for name in ["n1", "n2"] {
        let mut proxy = Proxy::connect(&harness, name, None).await;
        proxy.change().await;
        proxy.ack().await;
        proxies.push(proxy);
    }
    let (mut one, mut other) = (harness.feed(), harness.feed());
    let (first, second) = tokio::join!(
        one.report_node_status(resolved("n1", &made, digest('a'))),
        other.report_node_status(resolved("n2", &made, digest('b'))),
    );
    assert!(first.is_ok() && second.is_ok(), "both are taken in");
    eventually("a digest counts", || async {
        !known_digest(&harness).await.is_empty()
    })
    .await;
    let counts = known_digest(&harness).await;
    assert!([digest('a'), digest('b')].contains(&counts), "{counts}");
    let head = harness.head().await;
    for proxy in &mut proxies {
        proxy.reach(head).await;
        let route = proxy.route("hello").expect("a route");
        assert_eq!(
            route.versions[0].image_digest, counts,
            "the feed says it to both"
        );
    }
    // Said again and again, in the reports that follow, it changes nothing.
    for (node, said) in [("n2", 'b'), ("n1", 'a'), ("n2", 'c')] {
        let said = harness
            .feed()
            .report_node_status(resolved(node, &made, digest(said)))
            .await;
        said.expect("taken in");
    }
    let traffic = harness.split("hello", &[(1, 100)]).await;
    assert_eq!(known_digest(&harness).await, counts);
    assert!(traffic.feed_revision > 0);
}

#[tokio::test]
async fn images_of_all_versions_are_retained_whether_reached_or_not() {
    let harness = Harness::start().await;
    for service in ["hello", "other"] {
        harness.service(service).await;
        for number in 1..=3 {
            harness
                .version(service, &format!("{service}:{number}"))
                .await;
        }
    }
    harness.split("hello", &[(2, 100)]).await;
    let wanted: BTreeSet<_> = ["hello", "other"]
        .iter()
        .flat_map(|service| {
            (1..=3).map(move |number| (format!("{service}:{number}"), String::new()))
        })
        .collect();
    for page_size in [0, 1, 4, 1000] {
        let found = retained(&harness, page_size).await;
        assert_eq!(found.len(), 6, "each once");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    let request = pb::DeleteVersionRequest {
        name: "services/hello/versions/1".into(),
        ..Default::default()
    };
    harness
        .catalog()
        .delete_version(request)
        .await
        .expect("deleted");
    harness.delete("other").await;
    let left: Vec<_> = retained(&harness, 0)
        .await
        .into_iter()
        .map(|(image, _)| image)
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.contains(&"hello:1".to_owned()), "{left:?}");
}
