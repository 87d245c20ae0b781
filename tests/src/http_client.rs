//! Requests to a proxy under a given host name, and raw bytes for bad ones.
//!
//! No pool and no retry: a test must see every failure that a caller would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that a test asks for takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// A field's value, if there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// One connection, kept alive.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = timeout(LIMIT, TcpStream::connect(address))
            .await
            .with_context(|| format!("connecting to {address} takes too long"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error is also that of the request.
        tokio::spawn(connection.with_upgrades());
        Ok(Self { sender })
    }

    /// Sends, and returns when the head of the response is there.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        Ok(timeout(LIMIT, self.sender.send_request(request))
            .await
            .context("no answer")??)
    }

    /// One GET to its end.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer> {
        let response = self.send(get_request(host, path)?).await?;
        collect(response).await
    }
}

/// A GET for [`Connection::send`].
pub fn get_request(host: &str, path: &str) -> Result<Request<Full<Bytes>>> {
    Ok(Request::get(path)
        .header(header::HOST, host)
        .body(Full::default())?)
}

/// Reads a response to its end.
pub async fn collect(response: Response<Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let body = timeout(LIMIT, body.collect())
        .await
        .context("the body does not end")??
        .to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    Connection::open(address).await?.get(host, path).await
}

/// Any request on a connection of its own.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer> {
    let response = Connection::open(address).await?.send(request).await?;
    collect(response).await
}

/// Sends bytes as they are and returns what comes back until the peer closes or, having said
/// something, is silent for `silence`.
pub async fn raw(address: SocketAddr, bytes: &[u8], silence: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut block = [0_u8; 4096];
    loop {
        let patience = if answer.is_empty() { LIMIT } else { silence };
        match timeout(patience, stream.read(&mut block)).await {
            Ok(Ok(n)) if n > 0 => answer.extend_from_slice(&block[..n]),
            Ok(Err(error)) if answer.is_empty() => return Err(error.into()),
            // Closed, reset after the answer, or silent.
            _ => break,
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
