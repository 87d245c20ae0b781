//! HTTPS: certificates by host, their renewal, and the redirect from HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cless_data_plane::Options;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{HOST, OK, Stage, get};
use crate::feed::plane::within;

/// Writes a new certificate to the folder and returns its chain.
pub(crate) fn certify(folder: &Path, name: &str, hosts: &[&str]) -> Vec<u8> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).expect("a certificate");
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join(format!("{name}.key")), key).expect("a file");
    let chain = made.cert.pem().into_bytes();
    std::fs::write(folder.join(format!("{name}.crt")), &chain).expect("a file");
    chain
}

/// Performs a handshake for `host`, trusting only `roots`.
pub(crate) async fn shake(
    address: SocketAddr,
    host: &str,
    roots: &[&[u8]],
    protocols: &[&[u8]],
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let root = rustls::pki_types::CertificateDer::from_pem_slice(root).expect("PEM");
        store.add(root).expect("a root");
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn ask(stream: &mut TlsStream<TcpStream>, request: &str, end: &str) -> String {
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is taken");
    let mut read = Vec::new();
    within(end, async {
        while !String::from_utf8_lossy(&read).contains(end) {
            assert!(
                stream.read_buf(&mut read).await.expect("more") > 0,
                "it ended"
            );
        }
    })
    .await;
    String::from_utf8_lossy(&read).to_ascii_lowercase()
}

pub(super) fn with_folder(folder: &Path, redirect: bool) -> impl FnOnce(&mut Options) {
    let folder = folder.to_owned();
    move |options| {
        options.proxy.tls_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.proxy.tls_cert_dir = Some(folder);
        options.proxy.tls_redirect = redirect;
    }
}

#[tokio::test]
async fn both_versions_of_tls_serve_the_hosts_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certify(folder.path(), "a", &[HOST]);
    let other = certify(folder.path(), "b", &["b.localhost", "*.c.localhost"]);
    let mut stage = Stage::choosing(with_folder(folder.path(), false)).await;
    let address = stage.tls.expect("it listens");
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = shake(address, HOST, &[&first], &[b"http/1.1"], version)
            .await
            .expect("TLS");
        let request = get("/", "");
        let asked = ask(&mut stream, &request, "ok");
        let played = async {
            let (mut instance, head) = stage.instance().await;
            instance
                .send(OK.replace("200 OK\r\n", "200 OK\r\nconnection: close\r\n"))
                .await;
            head
        };
        let (answer, head) = futures_util::future::join(asked, played).await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    }
    for host in ["b.localhost", "x.c.localhost"] {
        assert!(
            shake(address, host, &[&other], &[], &version::TLS13)
                .await
                .is_ok(),
            "{host}"
        );
        assert!(
            shake(address, host, &[&first], &[], &version::TLS13)
                .await
                .is_err(),
            "{host}"
        );
    }
    // HTTP/2 by ALPN.
    let stream = shake(
        address,
        HOST,
        &[&first],
        &[b"h2", b"http/1.1"],
        &version::TLS13,
    )
    .await;
    let stream = stream.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    drop(stream);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_15_5_20_a_host_outside_the_certificate_is_misdirected() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certify(folder.path(), "a", &[HOST]);
    certify(folder.path(), "b", &["b.localhost"]);
    let stage = Stage::choosing(with_folder(folder.path(), false)).await;
    let address = stage.tls.expect("it listens");
    let mut stream = shake(address, HOST, &[&first], &[], &version::TLS13)
        .await
        .expect("TLS");
    let other = "GET / HTTP/1.1\r\nHost: b.localhost\r\n\r\n";
    let answer = ask(&mut stream, other, "request id").await;
    assert!(answer.starts_with("http/1.1 421"), "{answer}");
    stage.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_open_connections_continue() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = certify(folder.path(), "a", &[HOST]);
    let stage = Stage::choosing(with_folder(folder.path(), false)).await;
    let address = stage.tls.expect("it listens");
    let mut open = shake(address, HOST, &[&before], &[], &version::TLS13)
        .await
        .expect("TLS");
    let after = certify(folder.path(), "a", &[HOST]);
    within("the new certificate", async {
        while shake(address, HOST, &[&after], &[], &version::TLS13)
            .await
            .is_err()
        {
            tokio::time::sleep(super::QUIET).await;
        }
    })
    .await;
    let unknown = "GET / HTTP/1.1\r\nHost: unknown.a.localhost\r\n\r\n";
    let answer = ask(&mut open, unknown, "\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 404"), "{answer}");
    // A damaged file in the folder has no effect.
    std::fs::write(folder.path().join("a.key"), "no key").expect("a file");
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_15_4_9_plain_http_redirects_to_https() {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path(), "a", &[HOST]);
    let stage = Stage::choosing(with_folder(folder.path(), true)).await;
    let port = stage.tls.expect("it listens").port();
    let mut client = stage.client(get("/x?y=1", "")).await;
    let head = client.answered(308).await;
    assert!(
        head.contains(&format!("location: https://{HOST}:{port}/x?y=1\r\n")),
        "{head}"
    );
    stage.stop().await;
}

/// A balancer that ended TLS says so; a redirect would come back for ever.
#[tokio::test]
async fn a_request_that_a_trusted_peer_received_over_https_is_not_redirected() {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path(), "a", &[HOST]);
    let https = "X-Forwarded-Proto: https\r\n";
    for is_trusted in [false, true] {
        let with_tls = with_folder(folder.path(), true);
        let choose = |options: &mut Options| {
            with_tls(options);
            if is_trusted {
                options.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
            }
        };
        let mut stage = Stage::with(|_| (), choose).await;
        let mut client = stage.client(get("/", https)).await;
        if is_trusted {
            let (mut instance, head) = stage.instance().await;
            assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
            super::answers_ok(&mut instance, &mut client).await;
            client.send(get("/", "X-Forwarded-Proto: http\r\n")).await;
        }
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 308"), "{head}");
        stage.stop().await;
    }
}

/// RFC 9110 section 7.4: a request for `https` on a connection without TLS.
#[tokio::test]
async fn an_https_target_without_tls_is_misdirected() {
    let stage = Stage::start().await;
    let request = format!("GET https://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut client = stage.client(request).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 421"), "{head}");
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (mut client, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://{HOST}/")).body(());
    let sent = client.send_request(request.expect("a request"), true);
    let response = within("a response", sent.expect("it is taken").0).await;
    assert_eq!(response.expect("a response").status(), 421);
    stage.stop().await;
}

#[tokio::test]
async fn a_stopping_node_does_not_wait_for_silent_tls_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let chain = certify(folder.path(), "a", &[HOST]);
    let prepare = with_folder(folder.path(), false);
    let stage = Stage::choosing(|options| {
        prepare(options);
        options.drain_timeout = 30;
    })
    .await;
    let address = stage.tls.expect("it listens");
    let mute = TcpStream::connect(address).await.expect("it accepts");
    let mut shaken = Vec::new();
    for protocols in [&[][..], &[b"h2".as_slice()]] {
        let trusted = [&*chain];
        let met = shake(address, HOST, &trusted, protocols, &version::TLS13);
        shaken.push(met.await.expect("TLS"));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    within("the node stops", stage.node.shutdown()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "it waited");
    drop((mute, shaken));
}
