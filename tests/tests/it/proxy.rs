//! Requests and responses on their way through the proxy.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::http_client::{Connection, collect, get_request, raw, send};
use cless_tests::wait;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{SOON, check_serves, contains, hello, lacks};

const HELLO: &str = "hello.localhost";

/// A cluster with one running service.
async fn start() -> Result<Cluster> {
    let cluster = hello(settings()).await?;
    check_serves(&cluster, "hello").await?;
    Ok(cluster)
}

/// The values of a header field in the request that the app received.
fn received<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = request["headers"].as_array().map_or(&[][..], Vec::as_slice);
    let of_name = |pair: &&Value| {
        pair[0]
            .as_str()
            .is_some_and(|n| n.eq_ignore_ascii_case(name))
    };
    headers
        .iter()
        .filter(of_name)
        .filter_map(|pair| pair[1].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_receives_forwarding_headers_and_no_hop_by_hop_ones() -> Result<()> {
    let cluster = start().await?;
    let request = Request::get("/headers?a=1&b=%20")
        .header("host", HELLO)
        .header("connection", "keep-alive, x-hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic Zm9vOmJhcg==")
        .header("te", "gzip")
        .header("x-hop", "hop-by-hop")
        .header("x-kept", "one")
        .header("x-kept", "two")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-forwarded-host", "forged.example")
        .header("x-forwarded-proto", "https")
        .body(Full::default())?;
    let response = send(cluster.node(0).listen, request).await?;
    ensure!(response.status == 200, "{response:?}");
    let seen = response.json()?;
    ensure!(seen["target"] == "/headers?a=1&b=%20", "{seen}");
    ensure!(received(&seen, "host") == [HELLO], "{seen}");
    ensure!(received(&seen, "x-kept") == ["one", "two"], "{seen}");
    for hop in ["keep-alive", "proxy-authorization", "te", "x-hop"] {
        ensure!(
            received(&seen, hop).is_empty(),
            "{hop} was forwarded: {seen}"
        );
    }
    // The client is not trusted, so its forwarding headers are replaced.
    ensure!(
        received(&seen, "x-forwarded-for") == ["127.0.0.1"],
        "{seen}"
    );
    ensure!(received(&seen, "x-forwarded-proto") == ["http"], "{seen}");
    ensure!(received(&seen, "x-forwarded-host") == [HELLO], "{seen}");
    ensure!(received(&seen, "via").len() == 1, "{seen}");
    ensure!(received(&seen, "x-request-id").len() == 1, "{seen}");
    ensure!(response.header("via").is_some(), "{response:?}");
    ensure!(response.header("x-request-id").is_some(), "{response:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_framings_are_complete() -> Result<()> {
    let cluster = start().await?;
    let address = cluster.node(0).listen;
    let sized = Bytes::from(vec![b'z'; 3_000_000]);
    let request = Request::post("/echo")
        .header("host", HELLO)
        .body(Full::new(sized.clone()))?;
    let response = send(address, request).await?;
    ensure!(
        response.status == 200 && response.body == sized,
        "{} bytes",
        response.body.len()
    );

    let chunked = "POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\n4\r\nabcd\r\n3;ext=1\r\nefg\r\n0\r\n\r\n";
    let response = raw(address, chunked.as_bytes(), Duration::from_secs(10)).await?;
    ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
    contains(&response.to_ascii_lowercase(), "transfer-encoding: chunked")?;
    contains(&response, "abcd")?;
    contains(&response, "efg")?;

    let big = cluster.get("hello", "/big?bytes=20000000").await?;
    ensure!(big.body.len() == 20_000_000, "{} bytes", big.body.len());
    let empty = cluster.get("hello", "/big?bytes=0").await?;
    ensure!(empty.status == 200 && empty.body.is_empty(), "{empty:?}");
    let status = cluster.get("hello", "/status?code=418").await?;
    ensure!(status.status == 418, "{status:?}");
    let request = Request::head("/big?bytes=0")
        .header("host", HELLO)
        .body(Full::default())?;
    let head = send(address, request).await?;
    ensure!(
        head.status == 200 && head.header("content-length") == Some("0"),
        "{head:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_response_arrives_incrementally() -> Result<()> {
    let cluster = start().await?;
    let mut stream = TcpStream::connect(cluster.node(0).listen).await?;
    let request = "GET /stream?seconds=3&every_ms=100 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut seen = String::new();
    let mut block = [0_u8; 4096];
    while !seen.contains("tick 1\n") {
        let n = stream.read(&mut block).await?;
        ensure!(n > 0, "the stream ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&block[..n]));
    }
    lacks(&seen, "end\n")?;
    drop(stream);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_a_bidirectional_tunnel() -> Result<()> {
    let cluster = start().await?;
    let mut stream = TcpStream::connect(cluster.node(0).listen).await?;
    let request = "GET /upgrade HTTP/1.1\r\nHost: hello.localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 101 "), "{head}");
    ensure!(head.contains("upgrade: echo"), "{head}");
    for round in 0..3 {
        let line = format!("line {round}\n");
        stream.write_all(line.as_bytes()).await?;
        let mut back = vec![0_u8; line.len()];
        stream.read_exact(&mut back).await?;
        ensure!(back == line.as_bytes(), "{back:?}");
    }
    // A node would wait for an open tunnel at shutdown.
    drop(stream);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_continue_receives_it_before_its_body() -> Result<()> {
    let cluster = start().await?;
    let mut stream = TcpStream::connect(cluster.node(0).listen).await?;
    let head = "POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut interim = Vec::new();
    while !interim.ends_with(b"\r\n\r\n") {
        interim.push(stream.read_u8().await?);
    }
    ensure!(
        interim.starts_with(b"HTTP/1.1 100 "),
        "{}",
        String::from_utf8_lossy(&interim)
    );
    stream.write_all(b"12345").await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    ensure!(
        response.starts_with("HTTP/1.1 200 ") && response.ends_with("12345"),
        "{response}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_response_is_an_error() -> Result<()> {
    let cluster = start().await?;
    let mut connection = Connection::open(cluster.node(0).listen).await?;
    let cut = async {
        let response = connection
            .send(get_request(HELLO, "/cut?bytes=100000")?)
            .await?;
        collect(response).await
    }
    .await;
    ensure!(cut.is_err(), "half a body counts as complete: {cut:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_exits_during_a_request_is_a_502_and_is_replaced() -> Result<()> {
    let cluster = start().await?;
    let response = cluster.get("hello", "/exit?code=4").await?;
    ensure!(response.status == 502, "{response:?}");
    for field in ["x-request-id", "proxy-status"] {
        ensure!(response.header(field).is_some(), "no {field}: {response:?}");
    }
    let cache = response.header("cache-control");
    ensure!(cache == Some("no-store"), "{response:?}");
    // An exiting process closes its connections before its listener, so a connection in between is
    // cut as well.
    wait::until("another instance responds", SOON, async || {
        let next = cluster.get("hello", "/").await?;
        ensure!(matches!(next.status.as_u16(), 200 | 502), "{next:?}");
        Ok((next.status == 200).then_some(()))
    })
    .await?;
    cluster.finish().await
}
