//! The kind of server behind an address that is not a control plane's.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ServerUrl;

/// Limit of the whole probe.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A response head with a short body.
const MAX_BYTES: u64 = 4096;

/// The kind of server at an address of `http`, as text for people; `None` if it is unknown.
pub(crate) async fn identify(server: &ServerUrl) -> Option<&'static str> {
    if server.is_encrypted() {
        return None;
    }
    let (host, port) = (server.host(), server.port());
    let authority = format!("{host}:{port}");
    let probe = async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // A reset after some bytes leaves what came before it.
        let _ = stream.take(MAX_BYTES).read_to_end(&mut answer).await;
        kind(&answer)
    };
    tokio::time::timeout(TIMEOUT, probe).await.ok().flatten()
}

/// The kind of server that answers a request of HTTP/1.1 with these bytes.
fn kind(answer: &[u8]) -> Option<&'static str> {
    // An alert or a handshake record of TLS.
    if matches!(answer, [0x15 | 0x16, 0x03, ..]) {
        return Some("a server that speaks TLS");
    }
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    if !text.starts_with("http/1.") {
        return None;
    }
    Some(if text.contains("/healthz, /readyz and /metrics") {
        "the admin port of a node"
    } else if text.contains("\nproxy-status: cless") {
        "the HTTP proxy of a node"
    } else {
        "an HTTP server that is no control plane"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_of_a_node_is_recognised() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (
                b"HTTP/1.1 404 Not Found\r\nProxy-Status: cless; error=x\r\n\r\n",
                Some("the HTTP proxy of a node"),
            ),
            (
                b"HTTP/1.1 404 Not Found\r\n\r\nthere are /healthz, /readyz and /metrics\n",
                Some("the admin port of a node"),
            ),
            (
                b"HTTP/1.0 200 OK\r\n\r\n",
                Some("an HTTP server that is no control plane"),
            ),
            (
                b"\x15\x03\x01\x00\x02\x02\x46",
                Some("a server that speaks TLS"),
            ),
            (b"\x00\x00\x00\x04", None),
            (b"", None),
        ];
        for (answer, expected) in cases {
            assert_eq!(kind(answer), expected);
        }
    }
}
