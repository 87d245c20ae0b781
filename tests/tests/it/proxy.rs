//! What the proxy does to requests and responses on their way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::http_client::{Answer, Connection, collect, get_request, raw, send};
use cless_tests::wait;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{SOON, sample};

const HELLO: &str = "hello.localhost";

/// One service, awake.
async fn serving() -> Result<Cluster> {
    let cluster = Cluster::start(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    ensure!(cluster.get("hello", "/").await?.status == 200, "no answer");
    Ok(cluster)
}

/// The values of a field as the app received them.
fn received<'a>(answer: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = answer["headers"].as_array().map_or(&[][..], Vec::as_slice);
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
async fn the_app_sees_who_called_and_nothing_meant_for_the_hop() -> Result<()> {
    let cluster = serving().await?;
    let request = Request::get("/headers?a=1&b=%20")
        .header("host", HELLO)
        .header("connection", "keep-alive, x-hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic Zm9vOmJhcg==")
        .header("te", "gzip")
        .header("x-hop", "for the proxy alone")
        .header("x-kept", "one")
        .header("x-kept", "two")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-forwarded-host", "forged.example")
        .header("x-forwarded-proto", "https")
        .body(Full::default())?;
    let answer = send(cluster.node(0).listen, request).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let seen = answer.json()?;
    ensure!(seen["target"] == "/headers?a=1&b=%20", "{seen}");
    ensure!(received(&seen, "host") == [HELLO], "{seen}");
    ensure!(received(&seen, "x-kept") == ["one", "two"], "{seen}");
    for hop in ["keep-alive", "proxy-authorization", "te", "x-hop"] {
        ensure!(received(&seen, hop).is_empty(), "{hop} got through: {seen}");
    }
    // No peer is trusted here, so what the client claims is replaced.
    ensure!(
        received(&seen, "x-forwarded-for") == ["127.0.0.1"],
        "{seen}"
    );
    ensure!(received(&seen, "x-forwarded-proto") == ["http"], "{seen}");
    ensure!(received(&seen, "x-forwarded-host") == [HELLO], "{seen}");
    ensure!(received(&seen, "via").len() == 1, "{seen}");
    ensure!(received(&seen, "x-request-id").len() == 1, "{seen}");
    ensure!(answer.header("via").is_some(), "{answer:?}");
    ensure!(answer.header("x-request-id").is_some(), "{answer:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_framings_come_back_whole() -> Result<()> {
    let cluster = serving().await?;
    let address = cluster.node(0).listen;
    let sized = Bytes::from(vec![b'z'; 3_000_000]);
    let request = Request::post("/echo")
        .header("host", HELLO)
        .body(Full::new(sized.clone()))?;
    let answer = send(address, request).await?;
    ensure!(
        answer.status == 200 && answer.body == sized,
        "{} bytes",
        answer.body.len()
    );

    let chunked = "POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\n4\r\nabcd\r\n3;ext=1\r\nefg\r\n0\r\n\r\n";
    let answer = raw(address, chunked.as_bytes(), Duration::from_secs(10)).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    ensure!(
        answer
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked"),
        "{answer}"
    );
    ensure!(
        answer.contains("abcd") && answer.contains("efg"),
        "{answer}"
    );

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
async fn a_streamed_answer_arrives_as_it_is_made() -> Result<()> {
    let cluster = serving().await?;
    let mut stream = TcpStream::connect(cluster.node(0).listen).await?;
    let request = "GET /stream?seconds=3&every_ms=100 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut seen = String::new();
    let mut block = [0_u8; 4096];
    let begin = tokio::time::Instant::now();
    while !seen.contains("tick 1\n") {
        let n = stream.read(&mut block).await?;
        ensure!(n > 0, "the stream ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&block[..n]));
    }
    ensure!(
        !seen.contains("end\n"),
        "it came all at once, after {:?}",
        begin.elapsed()
    );
    drop(stream);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_a_tunnel_both_ways() -> Result<()> {
    let cluster = serving().await?;
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
    // An open tunnel is work: a node would wait for it.
    drop(stream);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_continue_gets_it_before_it_sends() -> Result<()> {
    let cluster = serving().await?;
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
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("12345"),
        "{answer}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_is_never_a_clean_end() -> Result<()> {
    let cluster = serving().await?;
    let mut connection = Connection::open(cluster.node(0).listen).await?;
    let cut = async {
        let response = connection
            .send(get_request(HELLO, "/cut?bytes=100000")?)
            .await?;
        collect(response).await
    }
    .await;
    ensure!(
        cut.is_err(),
        "half a body was taken for a whole one: {cut:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_dies_while_it_answers_is_a_502_and_is_replaced() -> Result<()> {
    let cluster = serving().await?;
    let answer = cluster.get("hello", "/exit?code=4").await?;
    ensure!(answer.status == 502, "{answer:?}");
    let proxy_made = |answer: &Answer| -> Option<()> {
        answer.header("x-request-id")?;
        answer.header("proxy-status")?;
        (answer.header("cache-control")? == "no-store").then_some(())
    };
    proxy_made(&answer).with_context(|| format!("not as the proxy's errors are: {answer:?}"))?;
    // A process that ends closes its connections before its listener: one that is made in between is cut
    // like the first.
    wait::until("another answers", SOON, async || {
        let next = cluster.get("hello", "/").await?;
        ensure!(matches!(next.status.as_u16(), 200 | 502), "{next:?}");
        Ok((next.status == 200).then_some(()))
    })
    .await?;
    cluster.finish().await
}
