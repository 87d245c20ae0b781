//! Requests to a proxy under a given host name, and raw bytes for malformed ones.
//!
//! There is no pool and no retry: a test must see every failure that a caller would see.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Upper limit of connecting and of a response.
const LIMIT: Duration = Duration::from_secs(120);

/// A response with its body.
#[derive(Debug)]
pub struct FullResponse {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl FullResponse {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The value of a header field; `None` if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Self::over(address, TcpStream::connect(address)).await
    }

    /// Connects from an address of this machine, as another client.
    pub async fn open_from(source: IpAddr, address: SocketAddr) -> Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.bind(SocketAddr::new(source, 0))?;
        Self::over(address, socket.connect(address)).await
    }

    async fn over(
        address: SocketAddr,
        connect: impl Future<Output = std::io::Result<TcpStream>>,
    ) -> Result<Self> {
        let stream = timeout(LIMIT, connect)
            .await
            .with_context(|| format!("connecting to {address} timed out"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The request reports the same error.
        tokio::spawn(connection.with_upgrades());
        Ok(Self { sender })
    }

    /// Sends a request and returns when the head of the response has arrived.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        Ok(timeout(LIMIT, self.sender.send_request(request))
            .await
            .context("no response in time")??)
    }

    /// Sends a GET and reads the whole response.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<FullResponse> {
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

/// Reads a response to the end of its body.
pub async fn collect(response: Response<Incoming>) -> Result<FullResponse> {
    let (head, body) = response.into_parts();
    let body = timeout(LIMIT, body.collect())
        .await
        .context("the body does not end")??
        .to_bytes();
    Ok(FullResponse {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// Sends a GET on a new connection.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<FullResponse> {
    Connection::open(address).await?.get(host, path).await
}

/// Sends a request on a new connection.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<FullResponse> {
    let response = Connection::open(address).await?.send(request).await?;
    collect(response).await
}

/// Sends raw bytes and returns the response until the peer closes or, after its first byte, is
/// silent for `silence`.
pub async fn raw(address: SocketAddr, bytes: &[u8], silence: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut response = Vec::new();
    let mut block = [0_u8; 4096];
    loop {
        let limit = if response.is_empty() { LIMIT } else { silence };
        match timeout(limit, stream.read(&mut block)).await {
            Ok(Ok(n)) if n > 0 => response.extend_from_slice(&block[..n]),
            Ok(Err(error)) if response.is_empty() => return Err(error.into()),
            // Closed, reset after the response, or silent.
            _ => break,
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}
