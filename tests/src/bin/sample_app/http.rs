//! HTTP/1.1 for the sample app: heads, framed bodies and complete responses.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// Framing of a request body (RFC 9112 section 6).
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("/")
    }

    pub(crate) fn query(&self, key: &str) -> Option<u64> {
        self.query_text(key)?.parse().ok()
    }

    pub(crate) fn query_text(&self, key: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn framing(&self) -> Framing {
        if self.header("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        let length = self.header("content-length").and_then(|v| v.parse().ok());
        Framing::Length(length.unwrap_or(0))
    }
}

pub(crate) fn read_head(input: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(Request {
                method,
                target,
                headers,
            }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

pub(crate) fn send(output: &mut TcpStream, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
    let mut message = format!(
        "HTTP/1.1 {status} Sample\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    message.extend_from_slice(body);
    output.write_all(&message)
}

pub(crate) fn send_chunk(output: &mut TcpStream, data: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    output.write_all(&chunk)
}

pub(crate) const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";

pub(crate) fn write_fill(output: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let block = [b'x'; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left)
            .unwrap_or(block.len())
            .min(block.len());
        output.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(())
}

pub(crate) fn read_body(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    mut take: impl FnMut(&mut TcpStream, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match request.framing() {
        Framing::Length(length) => copy_exactly(input, output, length, &mut take),
        Framing::Chunked => loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bad chunk size"))?;
            copy_exactly(input, output, size, &mut take)?;
            loop {
                line.clear();
                if input.read_line(&mut line)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // Data ends with one line break; the last chunk is followed by trailers and an
                // empty line.
                if size > 0 || line.trim_end().is_empty() {
                    break;
                }
            }
            if size == 0 {
                return Ok(());
            }
        },
    }
}

fn copy_exactly(
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    length: u64,
    take: &mut impl FnMut(&mut TcpStream, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let data = input.fill_buf()?;
        if data.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        take(output, &data[..part])?;
        input.consume(part);
        left -= part as u64;
    }
    Ok(())
}
