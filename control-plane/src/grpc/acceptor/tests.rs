//! The acceptor over real sockets, with small limits.

use super::*;
use crate::auth::Ca;
use crate::auth::ca::NewAuthority;
use crate::grpc::call_guard::CallGuardLayer;
use crate::grpc::server::transport;
use cless_proto::tls::{self, client_config};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service as _;

const CLUSTER: &str = "c1";
const SOON: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    total: 12,
    per_peer: 8,
    handshakes: 6,
    handshakes_per_peer: 4,
};

fn now() -> crate::domain::Timestamp {
    SystemTime::now().into()
}

fn authority() -> Arc<Ca> {
    let new = NewAuthority::generate(CLUSTER, None, now()).unwrap();
    Arc::new(Ca::new(CLUSTER, &[new.pem], &new.key).unwrap())
}

struct Server {
    addr: SocketAddr,
    ca: Arc<Ca>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let ca = authority();
        let issued = Arc::new(ca.issue_server(&[], now()).unwrap());
        let server_tls = ServerTls::new(Arc::clone(&ca), issued, None).unwrap();
        let (_, tls) = watch::channel(Some(server_tls));
        let (addr, stop) = serve(Security::Tls(tls), limits).await;
        Self {
            addr,
            ca,
            _stop: stop.drop_guard(),
        }
    }

    async fn channel(&self, identity: Option<Arc<dyn ResolvesClientCert>>) -> Channel {
        let endpoint = tls::endpoint(&format!("https://{}", self.addr)).unwrap();
        let config = client_config(vec![self.ca.fingerprint()], identity);
        tls::connect(endpoint, config, Some(CLUSTER)).await.unwrap()
    }

    async fn check_serves(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let endpoint = tls::endpoint(&format!("https://{}", self.addr)).unwrap();
            let config = client_config(vec![self.ca.fingerprint()], None);
            match tls::connect(endpoint, config, Some(CLUSTER)).await {
                Ok(channel) => return assert_eq!(healthy(channel).await, Ok(())),
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

async fn serve(security: Security, limits: Limits) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let incoming = accept_within(listener, security, limits, stop.clone());
    let incoming = incoming.map(Ok::<_, Infallible>);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let health = Routes::new(health).prepare();
    // Answers all other calls with what the acceptor says of the client.
    let service = tower::service_fn(move |request: tonic::codegen::http::Request<Body>| {
        let mut health = health.clone();
        async move {
            if request.uri().path().starts_with("/grpc.") {
                return health.call(request).await;
            }
            let peer = request.extensions().get::<Peer>().expect("a peer");
            let accepted = peer.certificate.is_some();
            let refusal = peer.refusal.as_deref().unwrap_or_default();
            Ok(Status::aborted(format!("{accepted} {refusal}")).into_http())
        }
    });
    let server = transport()
        .layer(CallGuardLayer)
        .serve_with_incoming_shutdown(service, incoming, stop.clone().cancelled_owned());
    tokio::spawn(server);
    (addr, stop)
}

async fn healthy(channel: Channel) -> Result<(), Code> {
    let request = HealthCheckRequest::default();
    let checked = HealthClient::new(channel).check(request).await;
    checked.map(|_| ()).map_err(|status| status.code())
}

/// Calls a method; the error says what the acceptor says of the client.
async fn call(channel: Channel) -> Status {
    let mut client = cless_proto::v1::catalog_service_client::CatalogServiceClient::new(channel);
    let request = Request::new(cless_proto::v1::GetServiceRequest::default());
    client.get_service(request).await.unwrap_err()
}

/// A node with a certificate.
#[derive(Debug)]
struct Node(Arc<CertifiedKey>);

impl ResolvesClientCert for Node {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn node(ca: &Ca, issued: crate::domain::Timestamp) -> Arc<dyn ResolvesClientCert> {
    use rcgen::PublicKeyData as _;
    let key = rcgen::KeyPair::generate().unwrap();
    let spki = key.subject_public_key_info();
    let certificate = ca.issue_node(&spki, "id-1", "node-1", issued).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate)];
    Arc::new(Node(Arc::new(CertifiedKey::new(chain, key))))
}

/// Reads to the end or an error.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let reading = timeout(SOON, stream.read_to_end(&mut text)).await;
    let _reset = reading.expect("it closes");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn clients_with_and_without_certificates_get_through() {
    let server = Server::start(LIMITS).await;
    let stranger = server.channel(None).await;
    assert_eq!(healthy(stranger.clone()).await, Ok(()));
    assert_eq!(call(stranger).await.message(), "false ");
    let node = server.channel(Some(node(&server.ca, now()))).await;
    assert_eq!(call(node).await.message(), "true ");
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_named_in_words() {
    let server = Server::start(LIMITS).await;
    let two_days = Duration::from_secs(2 * 24 * 60 * 60);
    let foreign = node(&authority(), now());
    for (identity, words) in [
        (node(&server.ca, now().minus(two_days)), "expired at"),
        (node(&server.ca, now().plus(two_days)), "valid from"),
        (foreign, "not from the authority of this cluster"),
    ] {
        let channel = server.channel(Some(identity)).await;
        let told = call(channel.clone()).await;
        assert!(told.message().starts_with("false "), "{told:?}");
        assert!(told.message().contains(words), "{told:?}");
        assert_eq!(healthy(channel).await, Ok(()));
    }
}

#[tokio::test]
async fn clients_without_tls_are_answered_in_words() {
    let server = Server::start(LIMITS).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    let plain = endpoint.connect().await.unwrap();
    let refused = call(plain).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("TLS"), "{refused:?}");
    for request in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"POST /cless.v1.CatalogService/GetService HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n",
    ] {
        let mut http1 = TcpStream::connect(server.addr).await.unwrap();
        http1.write_all(request).await.unwrap();
        let answer = read_all(&mut http1).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("gRPC over TLS"), "{answer}");
    }
    // One byte at a time, with the bytes that decide at last.
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    for byte in b"PUT " {
        slow.write_all(&[*byte]).await.unwrap();
        sleep(LOOK_PAUSE * 2).await;
    }
    let answer = read_all(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn silent_connections_take_the_places_of_their_peer_alone() {
    let server = Server::start(LIMITS).await;
    let mut silent = Vec::new();
    for _ in 0..LIMITS.handshakes_per_peer {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    // From now on the peer's connections are closed at once.
    let mut refused = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(read_all(&mut refused).await, "");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(server.addr).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(read_all(&mut other).await.starts_with("HTTP/1.1 400 "));
    drop(silent);
    server.check_serves().await;
}

#[tokio::test]
async fn connections_of_a_peer_are_limited() {
    let server = Server::start(LIMITS).await;
    let mut channels = Vec::new();
    for _ in 0..LIMITS.per_peer {
        channels.push(server.channel(None).await);
    }
    let mut refused = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(read_all(&mut refused).await, "");
    drop(channels);
    server.check_serves().await;
}

#[tokio::test]
async fn handshakes_wait_for_the_certificates() {
    let ca = authority();
    let (sender, tls) = watch::channel(None);
    let (addr, _stop) = serve(Security::Tls(tls), LIMITS).await;
    let endpoint = tls::endpoint(&format!("https://{addr}")).unwrap();
    let config = client_config(vec![ca.fingerprint()], None);
    let connecting = tokio::spawn(tls::connect(endpoint, config, None));
    sleep(LOOK_PAUSE * 3).await;
    let issued = Arc::new(ca.issue_server(&[], now()).unwrap());
    sender.send_replace(Some(ServerTls::new(ca, issued, None).unwrap()));
    assert_eq!(healthy(connecting.await.unwrap().unwrap()).await, Ok(()));
}

#[tokio::test]
async fn a_tls_client_of_an_insecure_port_is_told_so() {
    let (addr, _stop) = serve(Security::Insecure, LIMITS).await;
    let endpoint = tls::endpoint(&format!("https://{addr}")).unwrap();
    let config = client_config(vec![authority().fingerprint()], None);
    let error = tls::connect(endpoint, config, None).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("Plaintext"), "{error}");
}

fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".to_vec();
    let method = b"POST / HTTP/1.1\r\n".to_vec();
    let start = prop::sample::select(vec![Vec::new(), preface, hello, method]);
    let rest = prop::collection::vec(any::<u8>(), 0..300);
    (start, rest, any::<prop::sample::Index>()).prop_map(|(start, rest, cut)| {
        let cut = cut.index(start.len() + 1);
        [&start[..cut], &rest].concat()
    })
}

/// Any bytes are answered or closed, and the server goes on.
#[test]
fn fuzz_first_bytes() {
    let seconds = std::env::var("CLESS_FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(2);
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(Limits::of(4096)));
    let mut runner = proptest::test_runner::TestRunner::default();
    let mut tried = 0;
    while std::time::Instant::now() < until {
        let bytes = first_bytes().new_tree(&mut runner).unwrap().current();
        runtime.block_on(async {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            // The server may close before it has read all.
            let _written = stream.write_all(&bytes).await;
            let _shut = stream.shutdown().await;
            let answer = read_all(&mut stream).await;
            let http1 = bytes.first().is_some_and(u8::is_ascii_uppercase)
                && bytes.len() >= DECIDED_BY
                && !bytes.starts_with(b"PRI ");
            if http1 {
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "));
            }
        });
        tried += 1;
    }
    runtime.block_on(server.check_serves());
    assert!(tried > 0);
}
