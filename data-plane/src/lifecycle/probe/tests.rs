//! Probes of servers on loopback, and of the reference gRPC health service.

use super::*;
use crate::runtime::fake::{Fake, Health};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

fn probe(address: SocketAddr, readiness: Readiness) -> Probe {
    Probe {
        runtime: Arc::new(Fake::default()),
        name: "c".to_owned(),
        address,
        readiness,
        host: "shop.localhost".to_owned(),
        timings: ProbeTimings::default(),
        check: OnceCell::new(),
        run: tokio::sync::Mutex::default(),
        last: Mutex::new(None),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn briefly() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

/// The result of the last probe before a brief deadline, which contains `text`.
async fn unready(probe: &Probe, text: &str) -> String {
    let Err(Unready::Late { found, .. }) = probe.until_ready(briefly()).await else {
        panic!("not late")
    };
    assert!(found.contains(text), "{found}");
    found
}

/// Makes one attempt, whose result contains `text`.
async fn fails_once(probe: &Probe, text: &str) -> String {
    assert!(probe.attempt(Duration::from_secs(1)).await.is_err());
    let last = probe.last().unwrap();
    assert!(last.contains(text), "{last}");
    last
}

fn grpc(service: &str) -> Readiness {
    Readiness::Grpc {
        service: service.to_owned(),
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers each connection with the next response, then stops listening.
async fn scripted(answers: &'static [&'static str]) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await.unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_listener_is_ready_and_a_closed_port_is_not() {
    let (listener, address) = listener().await;
    let probe = probe(address, Readiness::Tcp);
    assert_eq!(probe.last(), None);
    assert_eq!(probe.until_ready(soon()).await, Ok(()));
    drop(listener);
    let found = unready(&probe, "connecting to port").await;
    assert_eq!(probe.last(), Some(found));
}

fn get() -> Readiness {
    Readiness::Http {
        path: "/healthz".into(),
        status: 200..=299,
        host: String::new(),
    }
}

#[tokio::test]
async fn an_http_probe_waits_for_a_status_in_its_range() {
    let address = scripted(&[
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Elsewhere\r\nlocation: /ok\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\nthe rest is never read",
    ])
    .await;
    assert_eq!(probe(address, get()).until_ready(soon()).await, Ok(()));
}

#[tokio::test]
async fn a_redirect_is_a_response_and_is_not_followed() {
    let address = scripted(&["HTTP/1.1 302 Elsewhere\r\nlocation: /ok\r\n\r\n"]).await;
    let probe = probe(address, get());
    let last = fails_once(&probe, "answered 302").await;
    assert!(last.ends_with("expected 200 to 299"), "{last}");
}

#[tokio::test]
async fn an_http_probe_sends_its_host_and_says_so() {
    let (listener, address) = listener().await;
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 512];
        let read = stream.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        String::from_utf8_lossy(&head[..read]).to_lowercase()
    });
    let probe = probe(address, get());
    let Err(Failed::NotYet(found, remedy)) = probe.attempt(Duration::from_secs(1)).await else {
        panic!("a client error is not ready");
    };
    assert_eq!(remedy, Remedy::Host);
    let port = address.port();
    let expected = format!(
        "GET /healthz on port {port} with Host shop.localhost: answered 400, expected 200 to 299"
    );
    assert_eq!(found, expected);
    let head = seen.await.unwrap();
    assert!(head.contains("\r\nhost: shop.localhost\r\n"), "{head}");
}

#[tokio::test]
async fn only_a_refused_connection_says_that_nothing_listens() {
    let (listener, address) = listener().await;
    drop(listener);
    let remedy = |found: Result<(), Unready>| match found {
        Err(Unready::Late { remedy, .. }) => remedy,
        other => panic!("{other:?}"),
    };
    let closed = probe(address, get()).until_ready(briefly()).await;
    assert_eq!(remedy(closed), Remedy::Listen);
    let address = scripted(&["HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"; 100]).await;
    let busy = probe(address, get()).until_ready(briefly()).await;
    assert_eq!(remedy(busy), Remedy::Wait);
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"x-more: and more\r\n").await.is_ok() {}
    });
    let probe = probe(address, get());
    fails_once(&probe, "too large").await;
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_passes_tcp_alone() {
    // The kernel completes the connection, as for a stopped process.
    let (_listener, address) = listener().await;
    let timings = ProbeTimings {
        timeout: Duration::from_millis(20),
        ..ProbeTimings::default()
    };
    for (readiness, answers) in [(Readiness::Tcp, true), (get(), false), (grpc(""), false)] {
        let mut probe = probe(address, readiness);
        probe.timings = timings;
        assert_eq!(
            probe.still_answers().await.is_ok(),
            answers,
            "{:?}",
            probe.readiness
        );
    }
}

#[tokio::test]
async fn one_successful_attempt_passes_a_health_check() {
    let address = scripted(&[
        "HTTP/1.1 500 No\r\n\r\n",
        "HTTP/1.1 500 No\r\n\r\n",
        "HTTP/1.1 204 Well\r\n\r\n",
    ])
    .await;
    assert_eq!(probe(address, get()).still_answers().await, Ok(()));
}

#[tokio::test]
async fn no_probe_is_sent_before_the_initial_delay() {
    let (_listener, address) = listener().await;
    let mut probe = probe(address, Readiness::Tcp);
    probe.timings.initial_delay = Duration::from_millis(200);
    let began = Instant::now();
    assert_eq!(probe.until_ready(soon()).await, Ok(()));
    assert!(began.elapsed() >= Duration::from_millis(200));
    unready(&probe, "initial_delay").await;
    let at_once = Instant::now();
    assert_eq!(probe.at_once().until_ready(soon()).await, Ok(()));
    assert!(at_once.elapsed() < Duration::from_millis(200));
}

/// The last attempt had 10 ms left, and its "no answer within 10ms" hid the earlier results.
#[tokio::test]
async fn an_attempt_that_the_deadline_cuts_short_hides_no_earlier_result() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        for round in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if round == 0 {
                let _ = stream
                    .write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
            held.push(stream);
        }
    });
    let probe = probe(address, get());
    let found = unready(&probe, "answered 503").await;
    assert_eq!(probe.last(), Some(found));
}

async fn health_server() -> (HealthReporter, SocketAddr) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let (listener, address) = listener().await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (reporter, address)
}

#[tokio::test]
async fn a_grpc_probe_waits_for_serving() {
    let (reporter, address) = health_server().await;
    assert_eq!(probe(address, grpc("")).until_ready(soon()).await, Ok(()));

    let of = |service: &str| probe(address, grpc(service));
    unready(&of("shop.v1.Cart"), "does not know this service").await;
    reporter
        .set_service_status("shop.v1.Cart", ServingStatus::NotServing)
        .await;
    unready(&of("shop.v1.Cart"), "NOT_SERVING").await;
    let later = reporter.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later
            .set_service_status("shop.v1.Cart", ServingStatus::Serving)
            .await;
    });
    assert_eq!(of("shop.v1.Cart").until_ready(soon()).await, Ok(()));
}

#[tokio::test]
async fn servers_without_health_and_without_http_2_are_distinguished() {
    let (listener, address) = listener().await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let empty = tonic::service::Routes::default();
    let server = tonic::transport::Server::builder().add_routes(empty);
    tokio::spawn(server.serve_with_incoming(incoming));
    unready(&probe(address, grpc("")), "no grpc.health.v1.Health").await;

    let address = scripted(&["HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n"]).await;
    let probe = probe(address, grpc(""));
    fails_once(&probe, "no HTTP/2 answer").await;
}

#[tokio::test]
async fn the_images_healthcheck_decides_and_its_absence_is_final() {
    let engine = Fake::default();
    engine.insert("c", BTreeMap::new()).await;
    let (_listener, address) = listener().await;
    let probe = Probe {
        runtime: Arc::new(engine.clone()),
        ..probe(address, Readiness::Healthcheck)
    };
    let began = Instant::now();
    let never = probe.until_ready(soon()).await.unwrap_err();
    assert!(
        matches!(&never, Unready::Never(why) if why.contains("no HEALTHCHECK")),
        "{never:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it is not waited for"
    );

    engine.set_health(
        "c",
        Some(Health::Unhealthy("cannot reach the cache".to_owned())),
    );
    unready(&probe, "exited with code 1: cannot reach the cache").await;
    engine.set_health("c", Some(Health::Healthy));
    assert_eq!(probe.until_ready(soon()).await, Ok(()));
}
