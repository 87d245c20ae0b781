//! Real handshakes with servers that hold good and bad certificates.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CLUSTER: &str = "c1";

/// An authority.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// A certificate for `name`, valid in the given years.
    fn issue(&self, name: &str, years: std::ops::Range<i32>) -> ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// Serves handshakes and then empty HTTP/2 connections.
async fn serve(config: ServerConfig) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    // An empty SETTINGS frame.
                    let _sent = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
                    let _read = stream.read(&mut [0; 1024]).await;
                }
            });
        }
    });
    port
}

async fn failure(port: u16, pin: Fingerprint, cluster: Option<&str>) -> String {
    let at = endpoint(&format!("https://127.0.0.1:{port}")).unwrap();
    match connect(at, client_config(vec![pin], None), cluster).await {
        Ok(_) => String::new(),
        Err(error) => {
            let mut text = String::new();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        }
    }
}

#[tokio::test]
async fn a_server_of_the_pinned_authority_is_trusted_for_the_name_of_its_cluster_alone() {
    let ours = Authority::new();
    let port = serve(ours.issue(&server_name(Some(CLUSTER)), 2020..2090)).await;
    assert_eq!(failure(port, ours.fingerprint(), Some(CLUSTER)).await, "");
    let other = failure(port, ours.fingerprint(), Some("c2")).await;
    assert!(other.contains("plane.c2.cless.internal"), "{other}");
    let early = failure(port, ours.fingerprint(), None).await;
    assert!(early.contains("plane.cless.internal"), "{early}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_and_both_are_named() {
    let (ours, other) = (Authority::new(), Authority::new());
    let port = serve(other.issue(&server_name(Some(CLUSTER)), 2020..2090)).await;
    let text = failure(port, ours.fingerprint(), Some(CLUSTER)).await;
    assert!(text.contains(&other.fingerprint().to_string()), "{text}");
    assert!(text.contains(&ours.fingerprint().to_string()), "{text}");
}

#[tokio::test]
async fn a_server_that_shows_the_pinned_certificate_without_its_key_is_refused() {
    let (ours, mut other) = (Authority::new(), Authority::new());
    other.certificate = ours.certificate.clone();
    let port = serve(other.issue(&server_name(Some(CLUSTER)), 2020..2090)).await;
    let text = failure(port, ours.fingerprint(), Some(CLUSTER)).await;
    assert!(text.contains("TLS handshake"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_is_not_in_force_shows_both_times() {
    let ours = Authority::new();
    for (years, bound) in [
        (2019..2020, "until 2020-01-01"),
        (2088..2089, "from 2088-01-01"),
    ] {
        let port = serve(ours.issue(&server_name(Some(CLUSTER)), years)).await;
        let text = failure(port, ours.fingerprint(), Some(CLUSTER)).await;
        assert!(text.contains(bound), "{text}");
        let year = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        assert!(text.contains(&year[..10]), "{text}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _read = stream.read(&mut [0; 1024]).await;
        }
    });
    let ours = Authority::new();
    let text = failure(port, ours.fingerprint(), None).await;
    assert!(text.contains("does not speak TLS"), "{text}");
    let shown = presented_authority("127.0.0.1", port, Duration::from_secs(5)).await;
    let shown = shown.unwrap_err().to_string();
    assert!(shown.contains("does not speak TLS"), "{shown}");
}

#[tokio::test]
async fn the_authority_of_any_server_can_be_looked_at() {
    let ours = Authority::new();
    let port = serve(ours.issue("example.org", 2019..2020)).await;
    let limit = Duration::from_secs(5);
    let shown = presented_authority("127.0.0.1", port, limit).await;
    assert_eq!(shown.unwrap(), ours.fingerprint());
    // Accepts connections in its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let limit = Duration::from_millis(200);
    let error = presented_authority("127.0.0.1", port, limit).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("did not answer within 200ms"), "{error}");
}

#[test]
fn an_endpoint_keeps_its_host_and_port() {
    for (url, at) in [
        ("https://a.example:7070", "http://a.example:7070/"),
        ("https://a.example", "http://a.example:443/"),
        ("https://[::1]:7070/", "http://[::1]:7070/"),
    ] {
        assert_eq!(endpoint(url).unwrap().uri().to_string(), at);
    }
    assert!(endpoint("https://a b").is_err());
}
