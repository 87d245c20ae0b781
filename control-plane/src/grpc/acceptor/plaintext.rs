//! Answers in words for clients without TLS.
//!
//! A gRPC client gets UNAUTHENTICATED for its calls, an HTTP/1 client 400. Nothing of what they sent
//! is used.

use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codegen::http::Request;

/// Time for an answer; the connection then ends.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Time for an HTTP/1 client to read the answer, and bytes of its request that are read meanwhile:
/// closing with unread bytes would reset the connection before the client reads.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_MAX: u64 = 64 * 1024;
/// Calls of one connection that are answered at once.
const CALLS_MAX: u32 = 16;

const HTTP1_ANSWER: &str =
    "This port speaks gRPC over TLS: use https:// and HTTP/2, or the command `cless`.\n";

/// Answers an HTTP/2 client.
pub(super) async fn answer_http2(stream: TcpStream) {
    let service = hyper::service::service_fn(|_request: Request<hyper::body::Incoming>| async {
        Ok::<_, Infallible>(super::super::status::tls_required().into_http::<tonic::body::Body>())
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // The end of the time is the end of the connection.
    if tokio::time::timeout(ANSWER_TIME, connection.as_mut())
        .await
        .is_err()
    {
        connection.as_mut().graceful_shutdown();
        let _ended = tokio::time::timeout(LINGER_TIME, connection).await;
    }
}

/// Answers an HTTP/1 client.
pub(super) async fn answer_http1(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{HTTP1_ANSWER}",
        HTTP1_ANSWER.len()
    );
    let answered = tokio::time::timeout(ANSWER_TIME, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    });
    if !matches!(answered.await, Ok(Ok(()))) {
        return;
    }
    let mut rest = stream.take(LINGER_MAX);
    let mut sink = tokio::io::sink();
    let drain = tokio::io::copy(&mut rest, &mut sink);
    let _drained = tokio::time::timeout(LINGER_TIME, drain).await;
}
