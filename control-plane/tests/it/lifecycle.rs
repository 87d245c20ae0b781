//! Start, health, reflection, shutdown.

use crate::harness::{Harness, assert_refused, eventually, new_service, next, options};
use cless_control_plane::{Error, Options, start};
use cless_proto::v1 as pb;
use std::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn health_covers_the_server_and_each_service() {
    let harness = Harness::start().await;
    let mut health = HealthClient::new(harness.channel.clone());
    for service in [
        "",
        "cless.v1.CatalogService",
        "cless.v1.TrafficService",
        "cless.v1.NodeService",
        "cless.v1.RouteFeedService",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.expect(service).into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn reflection_lists_all_services_in_both_versions() {
    let harness = Harness::start().await;
    let want = [
        "cless.v1.CatalogService",
        "cless.v1.NodeService",
        "cless.v1.RouteFeedService",
        "cless.v1.TrafficService",
        "grpc.health.v1.Health",
    ];
    macro_rules! list {
        ($version:ident) => {{
            use reflection::server_reflection_client::ServerReflectionClient;
            use reflection::server_reflection_request::MessageRequest;
            use reflection::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version as reflection;
            let ask = |request| {
                let mut client = ServerReflectionClient::new(harness.channel.clone());
                let request = reflection::ServerReflectionRequest {
                    message_request: Some(request),
                    ..Default::default()
                };
                async move {
                    let answers = client
                        .server_reflection_info(tokio_stream::once(request))
                        .await;
                    let mut answers = answers.expect("a stream").into_inner();
                    let answer = next(&mut answers).await;
                    answer.message_response.expect("an answer")
                }
            };
            let MessageResponse::ListServicesResponse(list) =
                ask(MessageRequest::ListServices(String::new())).await
            else {
                panic!("no list");
            };
            let names: Vec<_> = list.service.iter().map(|found| &*found.name).collect();
            for name in want {
                assert!(names.contains(&name), "{name} not in {names:?}");
            }
            let detail = MessageRequest::FileContainingSymbol("google.rpc.BadRequest".into());
            assert!(matches!(
                ask(detail).await,
                MessageResponse::FileDescriptorResponse(_)
            ));
        }};
    }
    list!(v1);
    list!(v1alpha);
}

#[tokio::test]
async fn an_exposed_address_needs_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let exposed = Options {
        listen: ([0, 0, 0, 0], 0).into(),
        data_dir: Some(folder.path().join("state")),
        ..options(folder.path())
    };
    let refused = start(exposed.clone()).await.err().expect("refused");
    assert!(matches!(refused, Error::Exposed(_)), "{refused}");
    assert!(refused.to_string().contains("remove --insecure"));
    let with_tls = Options {
        insecure: false,
        ..exposed
    };
    start(with_tls).await.expect("allowed").shutdown().await;
}

#[tokio::test]
async fn a_failed_start_returns_the_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = || options(folder.path());
    let missing = format!("sqlite://{}/no/such/folder/db", folder.path().display());
    let database = Options {
        database_url: missing,
        ..good()
    };
    assert!(matches!(start(database).await, Err(Error::Store(_))));
    let domain = Options {
        domain: "not a domain".into(),
        ..good()
    };
    assert!(matches!(start(domain).await, Err(Error::Domain { .. })));
    let first = start(good()).await.expect("starts");
    let taken = Options {
        listen: first.addr(),
        ..good()
    };
    assert!(matches!(start(taken).await, Err(Error::Listen { .. })));
    first.shutdown().await;
}

#[tokio::test]
async fn a_new_epoch_is_in_the_feed() {
    let mut harness = Harness::start().await;
    let before = harness.table().await.epoch;
    harness.stop().await;
    let minted = cless_control_plane::new_epoch(&options(harness.folder())).await;
    let minted = minted.expect("minted");
    assert_ne!(minted, before);
    let harness = harness.restart().await;
    assert_eq!(harness.table().await.epoch, minted);
}

/// The goal is a start under 1 s with 1 000 services. The test prints the time, and fails only far
/// above the goal, because test machines are slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_thousand_services_is_quick() {
    let mut harness = Harness::start().await;
    let service = |n| {
        let harness = &harness;
        async move { harness.service(&format!("s{n}")).await }
    };
    let mut creates = Vec::from_iter((0..1000).map(service));
    while !creates.is_empty() {
        let some = creates.split_off(creates.len().saturating_sub(50));
        futures_util::future::join_all(some).await;
    }
    drop(creates);
    harness.stop().await;
    let started = Instant::now();
    let running = start(options(harness.folder())).await.expect("starts");
    let took = started.elapsed();
    running.shutdown().await;
    // Visible with `cargo test -- --nocapture`.
    use std::io::Write as _;
    writeln!(std::io::stderr(), "start with 1 000 services: {took:?}").expect("stderr");
    assert!(took.as_secs() < 10, "{took:?}");
}

/// A write to a deleted file would be lost at the next start, so every write is refused.
#[tokio::test]
async fn a_deleted_or_replaced_database_file_is_noticed() {
    if crate::database::on_postgres() {
        return;
    }
    let harness = Harness::start().await;
    harness.service("before").await;
    let serving = async || {
        let mut health = HealthClient::new(harness.channel.clone());
        let answer = health.check(HealthCheckRequest::default()).await;
        answer.expect("it answers").into_inner().status() == ServingStatus::Serving
    };
    let aside = harness.folder().join("aside");
    for (part, replaced) in [("", false), ("", true), ("-wal", false)] {
        let file = harness.folder().join(format!("cless.db{part}"));
        std::fs::rename(&file, &aside).expect("moved away");
        if replaced {
            std::fs::copy(&aside, &file).expect("copied");
        }
        let refused = harness
            .call(new_service("lost", pb::Service::default()))
            .await;
        let status = assert_refused(refused, Code::FailedPrecondition, "DATABASE_FILE_GONE");
        assert!(status.message().contains("cless.db"), "{status:?}");
        eventually("it is not serving", || async { !serving().await }).await;
        std::fs::rename(&aside, &file).expect("put back");
        eventually("it serves again", &serving).await;
    }
    harness.service("after").await;
}
