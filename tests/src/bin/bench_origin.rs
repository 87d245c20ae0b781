//! `cless-bench-origin`: the fast, minimal server behind every proxy of the proxy bench.
//!
//! It runs one thread. HTTP/1.1 responses are prepared bytes, so that the origin costs little
//! compared with the proxies. HTTP/2 with prior knowledge, recognized by its preface, goes to hyper
//! and is gRPC.
//!
//! | path | response |
//! |---|---|
//! | `/1k`, `/64k` | that many bytes |
//! | any with `Upgrade` | 101, then an echo of every byte |
//! | HTTP/2, any | the request's body, then `grpc-status: 0` in trailers |

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Start of an HTTP/2 connection (RFC 9113 section 3.4); no HTTP/1.1 request starts so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const MAX_HEAD: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = std::env::var("PORT").ok();
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let responses: &'static Responses = Box::leak(Box::new(Responses::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A proxy may disconnect at any time.
            let _ = connection(stream, responses).await;
        });
    }
}

struct Responses {
    small: Vec<u8>,
    large: Vec<u8>,
    unknown: Vec<u8>,
}

impl Responses {
    fn new() -> Self {
        Self {
            small: response("200 OK", 1024),
            large: response("200 OK", 64 * 1024),
            unknown: response("404 Not Found", 0),
        }
    }

    fn of(&self, path: &[u8]) -> &[u8] {
        match path {
            b"/1k" => &self.small,
            b"/64k" => &self.large,
            _ => &self.unknown,
        }
    }
}

fn response(status: &str, length: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

async fn connection(mut stream: TcpStream, responses: &Responses) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(8 * 1024);
    let mut is_first = true;
    loop {
        let Some(end) = find(&input, b"\r\n\r\n") else {
            let full = input.len() > MAX_HEAD;
            if full || stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if is_first && input.starts_with(PREFACE) {
            return http2(stream, input.freeze()).await;
        }
        is_first = false;
        let head = input.split_to(end + 4);
        if let Some(protocol) = field(&head, b"\r\nupgrade:") {
            return echo(stream, protocol, &input).await;
        }
        let path = head[..].split(|byte| *byte == b' ').nth(1);
        stream
            .write_all(responses.of(path.unwrap_or_default()))
            .await?;
    }
}

/// Responds with 101 and echoes every byte, including `early` ones after the head.
async fn echo(mut stream: TcpStream, protocol: &[u8], early: &[u8]) -> io::Result<()> {
    let mut response =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ".to_vec();
    response.extend_from_slice(protocol);
    // The accept value (RFC 6455 section 4.2.2) of the bench's key "dGhlIHNhbXBsZSBub25jZQ==".
    response.extend_from_slice(b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    response.extend_from_slice(early);
    stream.write_all(&response).await?;
    let mut block = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut block).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&block[..n]).await?;
    }
}

/// Serves gRPC on a connection after the bytes in `read` have been received.
async fn http2(stream: TcpStream, read: Bytes) -> io::Result<()> {
    let (client, server) = stream.into_split();
    let joined = tokio::io::join(io::Cursor::new(read).chain(client), server);
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(1024)
        .serve_connection(TokioIo::new(joined), service_fn(unary))
        .await
        .map_err(io::Error::other)
}

async fn unary(
    request: Request<Incoming>,
) -> Result<
    Response<StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>>>>,
    Infallible,
> {
    let body = request.into_body().collect().await;
    let message = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The value of a header field; `name` is `\r\n`, the name in lower case, and a colon.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = head
        .windows(name.len())
        .position(|window| window.eq_ignore_ascii_case(name))?
        + name.len();
    let rest = head.get(start..)?;
    let end = find(rest, b"\r\n")?;
    rest.get(..end).map(<[u8]>::trim_ascii)
}
