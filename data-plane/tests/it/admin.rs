//! The admin port on an address that other hosts reach: TLS, and a token for metrics.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::{Options, start_on};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::feed::plane::{Plane, within};
use crate::proxy::tls::{certify, shake};

const TOKEN: &str = "0123456789abcdef";

fn options(plane: &Plane, folder: &Path) -> Options {
    Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        admin: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        control_planes: vec![plane.uri()],
        node: "one".to_owned(),
        cache_dir: folder.join("cache"),
        drain_timeout: 1,
        ..Options::default()
    }
}

#[tokio::test]
async fn metrics_beyond_loopback_need_tls_and_a_token() {
    let (plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let folder = folder.path();
    let refused = start_on(options(&plane, folder), Arc::new(Fake::default())).await;
    let error = refused.err().expect("it is open to all").to_string();
    assert!(error.contains("--metrics-token-file"), "{error}");

    let chain = certify(folder, "admin", &["admin.example"]);
    std::fs::write(folder.join("token"), TOKEN).unwrap();
    let options = Options {
        admin_tls_cert: Some(folder.join("admin.crt")),
        admin_tls_key: Some(folder.join("admin.key")),
        metrics_token_file: Some(folder.join("token")),
        ..options(&plane, folder)
    };
    let node = start_on(options, Arc::new(Fake::default())).await;
    let node = node.expect("it starts");
    let port = node.admin_addr().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let get = async |path: &str, more: &str| {
        let protocols: [&[u8]; 1] = [b"http/1.1"];
        let version = &rustls::version::TLS13;
        let stream = shake(address, "admin.example", &[&chain], &protocols, version).await;
        let mut stream = stream.expect("a handshake");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    };
    assert!(get("/healthz", "").await.contains("200 OK"));
    assert!(get("/readyz", "").await.contains("no route table yet"));
    let answer = get("/metrics", "").await.to_lowercase();
    assert!(
        answer.contains("401") && answer.contains("www-authenticate: bearer"),
        "{answer}"
    );
    let answer = get("/metrics", "Authorization: Bearer wrong\r\n").await;
    assert!(answer.contains("401"), "{answer}");
    let answer = get("/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert!(
        answer.contains("200 OK") && answer.contains("cless_"),
        "{answer}"
    );
    // Plaintext gets no answer.
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = within("the end", plain.read_to_end(&mut answer)).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("200"),
        "{answer:?}"
    );
    node.shutdown().await;
}
