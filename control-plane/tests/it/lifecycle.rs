//! Start, health, reflection, shutdown.

use crate::harness::{Harness, connect, options};
use cless_control_plane::{Error, Options, start};
use cless_proto::v1 as pb;
use std::time::Instant;
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
        let status = health
            .check(request)
            .await
            .expect(service)
            .into_inner()
            .status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
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
                    let answer = answers
                        .message()
                        .await
                        .expect("no error")
                        .expect("an answer");
                    answer.message_response.expect("an answer")
                }
            };
            let MessageResponse::ListServicesResponse(list) =
                ask(MessageRequest::ListServices(String::new())).await
            else {
                panic!("no list");
            };
            let names: Vec<_> = list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect();
            for name in want {
                assert!(
                    names.iter().any(|found| found == name),
                    "{name} not in {names:?}"
                );
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
async fn an_exposed_address_needs_allow_insecure() {
    let folder = tempfile::tempdir().expect("a folder");
    let exposed = Options {
        listen: ([0, 0, 0, 0], 0).into(),
        ..options(folder.path())
    };
    let refused = start(exposed.clone()).await.err().expect("refused");
    assert!(matches!(refused, Error::Exposed(_)), "{refused}");
    assert!(refused.to_string().contains("--allow-insecure"));
    let allowed = Options {
        allow_insecure: true,
        ..exposed
    };
    start(allowed).await.expect("allowed").shutdown().await;
}

#[tokio::test]
async fn a_failed_start_returns_the_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = format!("sqlite://{}/no/such/folder/db", folder.path().display());
    let database = Options {
        database_url: missing,
        ..options(folder.path())
    };
    assert!(matches!(start(database).await.err(), Some(Error::Store(_))));
    let domain = Options {
        domain: "not a domain".into(),
        ..options(folder.path())
    };
    assert!(matches!(
        start(domain).await.err(),
        Some(Error::Domain { .. })
    ));
    let first = start(options(folder.path())).await.expect("starts");
    let taken = Options {
        listen: first.addr(),
        ..options(folder.path())
    };
    assert!(matches!(
        start(taken).await.err(),
        Some(Error::Listen { .. })
    ));
    first.shutdown().await;
}

#[tokio::test]
async fn a_new_epoch_is_in_the_feed() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(options(folder.path())).await.expect("starts");
    let mut feed =
        pb::route_feed_service_client::RouteFeedServiceClient::new(connect(&running).await);
    let watch = feed.watch_routes(pb::WatchRoutesRequest::default()).await;
    let table = watch
        .expect("a stream")
        .into_inner()
        .message()
        .await
        .expect("no error");
    let before = table.expect("a table").epoch;
    running.shutdown().await;
    let minted = cless_control_plane::new_epoch(&options(folder.path()))
        .await
        .expect("minted");
    assert_ne!(minted, before);
    let running = start(options(folder.path())).await.expect("starts");
    let mut feed =
        pb::route_feed_service_client::RouteFeedServiceClient::new(connect(&running).await);
    let watch = feed.watch_routes(pb::WatchRoutesRequest::default()).await;
    let table = watch
        .expect("a stream")
        .into_inner()
        .message()
        .await
        .expect("no error");
    assert_eq!(table.expect("a table").epoch, minted);
    running.shutdown().await;
}

/// The goal is a start under 1 s with 1 000 services. The test prints the time, and fails only far
/// above the goal, because test machines are slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_thousand_services_is_quick() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(options(folder.path())).await.expect("starts");
    let channel = connect(&running).await;
    let creates = (0..1000).map(|n| {
        let mut catalog = pb::catalog_service_client::CatalogServiceClient::new(channel.clone());
        async move {
            let request = pb::CreateServiceRequest {
                service_id: format!("s{n}"),
                service: Some(pb::Service::default()),
                ..Default::default()
            };
            catalog.create_service(request).await.expect("created");
        }
    });
    let mut creates = Vec::from_iter(creates);
    while !creates.is_empty() {
        let some = creates.split_off(creates.len().saturating_sub(50));
        futures_util::future::join_all(some).await;
    }
    running.shutdown().await;
    let started = Instant::now();
    let running = start(options(folder.path())).await.expect("starts");
    let took = started.elapsed();
    running.shutdown().await;
    // Visible with `cargo test -- --nocapture`.
    use std::io::Write as _;
    writeln!(std::io::stderr(), "start with 1 000 services: {took:?}").expect("stderr");
    assert!(took.as_secs() < 10, "{took:?}");
}
