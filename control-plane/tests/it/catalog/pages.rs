//! Paginated lists.

use cless_proto::v1 as pb;

use crate::harness::Harness;

#[tokio::test]
async fn pages_join_without_gaps() {
    let harness = Harness::start().await;
    for n in 0..7 {
        harness.service(&format!("s{n}")).await;
        harness.version("s0", "hello:1").await;
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListServicesRequest {
            page_size: 3,
            page_token,
            ..Default::default()
        };
        let page = harness.ok(request).await;
        assert!(page.services.len() <= 3);
        seen.extend(page.services.into_iter().map(|service| service.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let want: Vec<_> = (0..7).map(|n| format!("services/s{n}")).collect();
    assert_eq!(seen, want);

    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let parent = "services/s0".into();
        let request = pb::ListVersionsRequest {
            parent,
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = harness.ok(request).await;
        seen.extend(page.versions.into_iter().map(|version| version.number));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
}
