//! JSON responses of the sample app.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::Request;

/// Connects to an address, for tests of network isolation.
pub(crate) fn connect_json(request: &Request) -> String {
    let limit = Duration::from_secs(2);
    let to: Option<SocketAddr> = request.query_text("to").and_then(|to| to.parse().ok());
    let Some(to) = to else {
        return "{\"outcome\":\"give to=IP:PORT\"}\n".to_owned();
    };
    let mut stream = match TcpStream::connect_timeout(&to, limit) {
        Ok(stream) => stream,
        Err(error) => {
            let outcome = match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => "refused",
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
                _ => "unreachable",
            };
            let detail = quote(&error.to_string());
            return format!("{{\"outcome\":{},\"detail\":{detail}}}\n", quote(outcome));
        }
    };
    let mut answer = String::new();
    if let Some(host) = request.query_text("host") {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = write!(
            stream,
            "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.read_to_string(&mut answer);
    }
    format!(
        "{{\"outcome\":\"connected\",\"answer\":{}}}\n",
        quote(&answer)
    )
}

pub(crate) fn headers_json(request: &Request) -> String {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("[{},{}]", quote(name), quote(value)))
        .collect();
    format!(
        "{{\"method\":{},\"target\":{},\"headers\":[{}]}}\n",
        quote(&request.method),
        quote(&request.target),
        headers.join(",")
    )
}

pub(crate) fn env_json() -> String {
    let pairs: Vec<String> = std::env::vars()
        .map(|(k, v)| format!("{}:{}", quote(&k), quote(&v)))
        .collect();
    format!("{{{}}}\n", pairs.join(","))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
