//! One GET on a connection of its own.

use std::future::Future;
use std::pin::pin;

use http::header;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest response head; more than any server sends to a probe.
const HEAD_MAX: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
}

/// The status of the response. The connection is dropped with the unread body.
pub(super) async fn status(stream: TcpStream, host: &str, path: &str) -> Result<u16, Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
        .await?;
    let request = http::Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "cless-probe")
        .header(header::CONNECTION, "close")
        .body(Empty::new())?;
    let response = drive(sender.send_request(request), connection).await?;
    Ok(response.status().as_u16())
}

/// Runs a request together with its connection.
pub(super) async fn drive<T>(request: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut request, connection) = (pin!(request), pin!(connection));
    tokio::select! {
        biased;
        done = &mut request => return done,
        _ = connection => {}
    }
    // The response may have arrived with the end of the connection.
    request.await
}
