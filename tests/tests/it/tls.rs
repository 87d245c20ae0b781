//! HTTPS at a node: certificates per host, renewal, both HTTP versions, redirect from HTTP.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::grpc::Client;
use cless_tests::{http_client, tls, wait};
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::http2::{over, text};
use crate::{SOON, sample, serve_spec};

const HELLO: &str = "hello.localhost";

/// A cluster whose node serves HTTPS with the certificates of a directory.
async fn https_cluster(dir: &Path, args: &[&str]) -> Result<Cluster> {
    let dir = dir.display().to_string();
    let mut flags = vec!["--tls-listen", "127.0.0.1:0", "--tls-cert-dir", &dir];
    flags.extend(args);
    let cluster = Cluster::start_with(1, NodeSetup::flags(&flags)).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    Ok(cluster)
}

fn request(url: &str) -> Result<Request<Full<Bytes>>> {
    Ok(Request::get(url).body(Full::default())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_its_certificate_and_both_http_versions_start_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hello = tls::certify(dir.path(), "hello", &[HELLO])?;
    let echo = tls::certify(dir.path(), "echo", &["echo.localhost"])?;
    let cluster = https_cluster(dir.path(), &[]).await?;
    let address = cluster.node(0).tls.context("no HTTPS")?;

    // HTTP/2 by ALPN, with a cold start.
    let stream = tls::connect(address, HELLO, &hello, &["h2", "http/1.1"]).await?;
    let protocol = stream.get_ref().1.alpn_protocol();
    ensure!(protocol == Some(b"h2"), "{protocol:?}");
    let mut sender = over(stream).await?;
    let answer = sender
        .send_request(request("https://hello.localhost/headers")?)
        .await?;
    let seen = text(answer).await?;
    ensure!(seen.contains(r#"["x-forwarded-proto","https"]"#), "{seen}");
    // A host of another certificate is misdirected on this connection (RFC 9110 section 15.5.20).
    let other = sender
        .send_request(request("https://echo.localhost/")?)
        .await?;
    ensure!(other.status() == 421, "{other:?}");

    let mut stream = tls::connect(address, HELLO, &hello, &["http/1.1"]).await?;
    let get = format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("one\n"),
        "{answer}"
    );

    // Certificates are selected by SNI.
    tls::connect(address, "echo.localhost", &echo, &[]).await?;
    let wrong = tls::connect(address, HELLO, &echo, &[]).await;
    ensure!(wrong.is_err(), "another host's certificate was served");

    // gRPC over TLS.
    let spec = crate::grpc::spec(cless_proto::v1::version_spec::Protocol::H2c, "one").await?;
    serve_spec(&cluster, "echo", settings(), spec).await?;
    let trust = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(echo))
        .domain_name("echo.localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .origin("https://echo.localhost".parse()?)
        .tls_config(trust)?;
    let reply = Client::over(endpoint.connect().await?).say("hello").await?;
    ensure!(reply.get_ref() == "one: hello", "{reply:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_and_open_connections_are_kept() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let before = tls::certify(dir.path(), "hello", &[HELLO])?;
    let cluster = https_cluster(dir.path(), &[]).await?;
    let address = cluster.node(0).tls.context("no HTTPS")?;
    let mut kept = over(tls::connect(address, HELLO, &before, &["h2"]).await?).await?;
    ensure!(
        kept.send_request(request("https://hello.localhost/")?)
            .await?
            .status()
            == 200,
        "no"
    );
    // A response that outlasts the interval at which the directory is read.
    let stream = request("https://hello.localhost/stream?seconds=10&every_ms=100")?;
    let streaming = kept.send_request(stream).await?;

    let after = tls::certify(dir.path(), "hello", &[HELLO])?;
    wait::until("the new certificate is served", SOON, async || {
        Ok(tls::connect(address, HELLO, &after, &[]).await.ok())
    })
    .await?;
    ensure!(
        tls::connect(address, HELLO, &before, &[]).await.is_err(),
        "the old certificate is served too"
    );
    let streamed = text(streaming).await?;
    ensure!(streamed.ends_with("end\n"), "cut: {streamed}");
    let again = kept
        .send_request(request("https://hello.localhost/")?)
        .await?;
    ensure!(again.status() == 200, "{again:?}");

    // An invalid file keeps the last valid certificate.
    std::fs::write(dir.path().join("hello.key"), "no key")?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    tls::connect(address, HELLO, &after, &[]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_redirected_to_https() -> Result<()> {
    let dir = tempfile::tempdir()?;
    tls::certify(dir.path(), "hello", &[HELLO])?;
    let cluster = https_cluster(dir.path(), &["--tls-redirect"]).await?;
    let node = cluster.node(0);
    let port = node.tls.context("no HTTPS")?.port();
    let answer = http_client::get(node.listen, HELLO, "/x?y=1").await?;
    ensure!(answer.status == 308, "{answer:?}");
    let to = format!("https://{HELLO}:{port}/x?y=1");
    ensure!(answer.header("location") == Some(to.as_str()), "{answer:?}");
    ensure!(
        cluster.containers(Some("hello")).await?.is_empty(),
        "a redirect started a container"
    );
    cluster.finish().await
}
