//! One GET on a connection of its own.

use std::net::SocketAddr;

use http::header;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::over;

/// More than any head of an answer to a probe; a larger one is refused.
const HEAD_MAX: usize = 16 * 1024;

/// Why a GET got no status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
}

/// The status of the answer. Its body is not read: the connection is dropped with it.
pub(super) async fn status(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
) -> Result<u16, Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
        .await?;
    let request = http::Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "cless-probe")
        .header(header::CONNECTION, "close")
        .body(Empty::new())?;
    let response = over(sender.send_request(request), connection).await?;
    Ok(response.status().as_u16())
}
