//! Clients that speak HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3).

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cless_tests::cluster::settings;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::hello;

/// Opens an HTTP/2 connection over a stream.
pub(crate) async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn with_prior_knowledge(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    over(TcpStream::connect(address).await?).await
}

/// The text of a response, which must be HTTP/2 with status 200.
pub(crate) async fn text(response: Response<Incoming>) -> Result<String> {
    ensure!(response.status() == 200, "{response:?}");
    ensure!(response.version() == Version::HTTP_2, "{response:?}");
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_start_a_version_and_run_concurrently() -> Result<()> {
    let cluster = hello(settings()).await?;
    let sender = with_prior_knowledge(cluster.node(0).listen).await?;
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let request = Request::get("http://hello.localhost/slow?ms=300");
            let response = sender.send_request(request.body(Full::default())?).await?;
            text(response).await
        });
    }
    while let Some(text) = requests.join_next().await {
        let text = text??;
        ensure!(text.trim() == "one", "{text}");
    }
    ensure!(
        cluster.containers(Some("hello")).await?.len() == 1,
        "more than one container was started"
    );
    let load = cluster.get("hello", "/load").await?.json()?;
    ensure!(
        load["peak"].as_u64().is_some_and(|peak| peak > 10),
        "requests ran in sequence: {load}"
    );

    // A body larger than any flow-control window is complete.
    let mut sender = sender;
    let body = Bytes::from(vec![b'z'; 3_000_000]);
    let request = Request::post("http://hello.localhost/echo").body(Full::new(body.clone()))?;
    let echoed = text(sender.send_request(request).await?).await?;
    ensure!(echoed.as_bytes() == body, "{} bytes", echoed.len());
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_response_resets_only_its_stream() -> Result<()> {
    let cluster = hello(settings()).await?;
    let mut sender = with_prior_knowledge(cluster.node(0).listen).await?;
    let request = Request::get("http://hello.localhost/cut?bytes=100000").body(Full::default())?;
    // The reset may arrive before the head.
    let cut = async { text(sender.send_request(request).await?).await }.await;
    ensure!(cut.is_err(), "half a body counts as complete");
    let request = Request::get("http://hello.localhost/").body(Full::default())?;
    let next = text(sender.send_request(request).await?).await?;
    ensure!(next.trim() == "one", "{next}");
    cluster.finish().await
}
