//! Invalid input to the feed: Hello, watches, reports.

use super::{BAD, Checker, with};
use crate::control::Control;
use crate::feed_client::{FeedClient, hello};
use crate::harness::report;
use cless_proto::v1 as pb;
use pb::stream_control_request::Message as ControlMessage;
use pb::stream_routes_request::Message;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let service = "hello".into();
    let id_alone = pb::WatchRoutesRequest { service };
    checker.bad(id_alone, "service").await;

    for (hello, field) in bad_hellos() {
        let mut client = FeedClient::open(checker.harness).await;
        client.send(Message::Hello(hello)).await;
        let answer = client.receive().await;
        checker
            .check("StreamRoutes", field, answer, BAD, field)
            .await;
    }
    for (node, boot_id, field) in [
        (None, "b", "hello.node"),
        (node("", "n1"), "b", "hello.node.id"),
        (node("x", "UPPER"), "b", "hello.node.name"),
        (node("x", "n1"), "", "hello.boot_id"),
    ] {
        let boot_id = boot_id.to_owned();
        let mut control = Control::open(checker.harness).await;
        let hello = pb::ControlHello { node, boot_id };
        control.send(ControlMessage::Hello(hello)).await;
        let answer = control.next().await;
        checker
            .check("StreamControl", field, answer, BAD, field)
            .await;
    }
    for (request, field) in bad_reports() {
        checker.bad(request, &field).await;
    }
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let request = pb::ListRetainedImagesRequest {
            page_size,
            page_token: token.into(),
        };
        checker.bad(request, field).await;
    }
}

fn node(id: &str, name: &str) -> Option<pb::NodeIdentity> {
    Some(pb::NodeIdentity {
        id: id.into(),
        name: name.into(),
        version: String::new(),
    })
}

/// Hellos with one invalid field, and its path.
fn bad_hellos() -> Vec<(pb::Hello, &'static str)> {
    let bad = |field, change: fn(&mut pb::Hello)| (with(hello("n1", None), change), field);
    fn have(epoch: &str, digest: usize) -> Option<pb::Cursor> {
        Some(pb::Cursor {
            epoch: epoch.into(),
            revision: 1,
            digest: vec![0; digest].into(),
        })
    }
    vec![
        bad("hello.protocol", |h| h.protocol = 2),
        bad("hello.node", |h| h.node = None),
        bad("hello.node.id", |h| h.node = node("", "n1")),
        bad("hello.node.name", |h| h.node = node("x", "UPPER")),
        bad("hello.boot_id", |h| h.boot_id.clear()),
        bad("hello.have.digest", |h| h.have = have("e", 31)),
        bad("hello.have.epoch", |h| h.have = have("", 32)),
    ]
}

/// Reports with one invalid field, and its path.
fn bad_reports() -> Vec<(pb::ReportNodeStatusRequest, String)> {
    type Report = pb::ReportNodeStatusRequest;
    let bad =
        |field: &str, change: &dyn Fn(&mut Report)| (with(report("n1"), change), field.to_owned());
    let version = |field: &str, change: fn(&mut pb::VersionReport)| {
        let uid = uuid::Uuid::from_u128(1).to_string();
        let good = pb::VersionReport {
            service_uid: uid.clone(),
            number: 1,
            version_uid: uid,
            ..Default::default()
        };
        let versions = vec![with(good, change)];
        let field = format!("versions[0].{field}");
        bad(&field, &|r| r.versions.clone_from(&versions))
    };
    fn outcome(id: &str, state: i32) -> Option<pb::VerifyOutcome> {
        Some(pb::VerifyOutcome {
            id: id.into(),
            state,
            ..Default::default()
        })
    }
    vec![
        bad("node", &|r| r.node = None),
        bad("node.id", &|r| r.node = node("", "n1")),
        bad("node.name", &|r| r.node = node("x", "")),
        bad("boot_id", &|r| r.boot_id.clear()),
        bad("instances[0].name", &|r| {
            r.instances = vec![Default::default()];
        }),
        version("service_uid", |v| v.service_uid = "not a uid".into()),
        version("version_uid", |v| v.version_uid = "not a uid".into()),
        version("number", |v| v.number = 0),
        version("image_digest", |v| v.image_digest = "md5:1".into()),
        version("verify.id", |v| v.verify = outcome("", 1)),
        version("verify.state", |v| v.verify = outcome("p", 9)),
    ]
}
