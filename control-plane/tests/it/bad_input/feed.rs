//! Invalid input to the feed: Hello, watches, reports.

use super::{BAD, Checker};
use crate::feed_client::FeedClient;
use crate::harness::{Harness, identity};
use cless_proto::v1 as pb;

pub(super) async fn rows(harness: &Harness, checker: &mut Checker<'_>) {
    let request = pb::WatchRoutesRequest {
        service: "hello".into(),
    };
    let answer = harness.feed().watch_routes(request).await;
    checker
        .check(
            "WatchRoutes",
            "a service's id alone",
            answer,
            BAD,
            "service",
        )
        .await;

    let good = || pb::Hello {
        protocol: 1,
        node: Some(identity("n1")),
        boot_id: "b".into(),
        have: None,
    };
    let node = |id: &str, name: &str| {
        Some(pb::NodeIdentity {
            id: id.into(),
            name: name.into(),
            version: String::new(),
        })
    };
    let have = |epoch: &str, digest: usize| {
        let (epoch, digest) = (epoch.to_owned(), vec![0; digest].into());
        Some(pb::Cursor {
            epoch,
            revision: 1,
            digest,
        })
    };
    for (hello, field) in [
        (
            pb::Hello {
                protocol: 2,
                ..good()
            },
            "hello.protocol",
        ),
        (
            pb::Hello {
                node: None,
                ..good()
            },
            "hello.node",
        ),
        (
            pb::Hello {
                node: node("", "n1"),
                ..good()
            },
            "hello.node.id",
        ),
        (
            pb::Hello {
                node: node("x", "UPPER"),
                ..good()
            },
            "hello.node.name",
        ),
        (
            pb::Hello {
                boot_id: String::new(),
                ..good()
            },
            "hello.boot_id",
        ),
        (
            pb::Hello {
                have: have("e", 31),
                ..good()
            },
            "hello.have.digest",
        ),
        (
            pb::Hello {
                have: have("", 32),
                ..good()
            },
            "hello.have.epoch",
        ),
    ] {
        let mut client = FeedClient::open(harness).await;
        client
            .send(pb::stream_routes_request::Message::Hello(hello))
            .await;
        let answer = client.receive().await;
        checker
            .check("StreamRoutes", field, answer, BAD, field)
            .await;
    }

    let good = || pb::ReportNodeStatusRequest {
        node: Some(identity("n1")),
        boot_id: "b".into(),
        ..Default::default()
    };
    let uid = || uuid::Uuid::from_u128(1).to_string();
    let seen = || pb::VersionReport {
        service_uid: uid(),
        number: 1,
        version_uid: uid(),
        ..Default::default()
    };
    let of = |version| pb::ReportNodeStatusRequest {
        versions: vec![version],
        ..good()
    };
    let outcome = |id: &str, state| {
        Some(pb::VerifyOutcome {
            id: id.into(),
            state,
            ..Default::default()
        })
    };
    let bad_uid = || "not a uid".to_owned();
    for (request, field) in [
        (
            pb::ReportNodeStatusRequest {
                node: None,
                ..good()
            },
            "node",
        ),
        (
            pb::ReportNodeStatusRequest {
                node: node("", "n1"),
                ..good()
            },
            "node.id",
        ),
        (
            pb::ReportNodeStatusRequest {
                node: node("x", ""),
                ..good()
            },
            "node.name",
        ),
        (
            pb::ReportNodeStatusRequest {
                boot_id: String::new(),
                ..good()
            },
            "boot_id",
        ),
        (
            pb::ReportNodeStatusRequest {
                instances: vec![pb::Instance::default()],
                ..good()
            },
            "instances[0].name",
        ),
        (
            of(pb::VersionReport {
                service_uid: bad_uid(),
                ..seen()
            }),
            "versions[0].service_uid",
        ),
        (
            of(pb::VersionReport {
                version_uid: bad_uid(),
                ..seen()
            }),
            "versions[0].version_uid",
        ),
        (
            of(pb::VersionReport {
                number: 0,
                ..seen()
            }),
            "versions[0].number",
        ),
        (
            of(pb::VersionReport {
                image_digest: "md5:1".into(),
                ..seen()
            }),
            "versions[0].image_digest",
        ),
        (
            of(pb::VersionReport {
                verify: outcome("", 1),
                ..seen()
            }),
            "versions[0].verify.id",
        ),
        (
            of(pb::VersionReport {
                verify: outcome("p", 9),
                ..seen()
            }),
            "versions[0].verify.state",
        ),
    ] {
        let answer = harness.feed().report_node_status(request).await;
        checker
            .check("ReportNodeStatus", field, answer, BAD, field)
            .await;
    }

    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let request = pb::ListRetainedImagesRequest {
            page_size,
            page_token: token.into(),
        };
        let answer = harness.feed().list_retained_images(request).await;
        checker
            .check("ListRetainedImages", field, answer, BAD, field)
            .await;
    }
}
